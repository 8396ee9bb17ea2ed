// A form with data-upload: a file that is too large is told before it leaves, the others show how far they are.
(() => {
    const form = () => document.querySelector("form[data-upload]");
    const part = (name) => form().querySelector(`[data-upload-${name}]`);

    const say = (text) => {
        const trouble = part("trouble");
        trouble.textContent = text;
        trouble.hidden = !text;
    };
    const mib = (bytes) => (bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });
    const tooLarge = () => {
        const input = form().querySelector("input[type=file]");
        const most = Number(input.dataset.bytesMax);
        const size = input.files.length ? input.files[0].size : 0;
        say(size > most ? `The file has ${mib(size)} MiB, more than the ${mib(most)} MiB that may be uploaded. Compress it, or name an address.` : "");
        return size > most;
    };

    document.addEventListener("change", (event) => {
        if (event.target.matches("form[data-upload] input[type=file]")) {
            tooLarge();
        }
    });
    document.addEventListener("htmx:beforeRequest", (event) => {
        if (!event.target.matches("form[data-upload]")) {
            return;
        }
        if (tooLarge()) {
            event.preventDefault();
            return;
        }
        part("progress").hidden = !form().querySelector("input[type=file]").files.length;
    });
    document.addEventListener("htmx:xhr:progress", (event) => {
        const { loaded, total } = event.detail;
        if (!event.target.matches("form[data-upload]") || !total || part("progress").hidden) {
            return;
        }
        form().querySelector("progress").value = (100 * loaded) / total;
        part("text").textContent =
            loaded < total ? `${mib(loaded)} of ${mib(total)} MiB` : "All of it is there, it is being stored …";
    });
    // A refusal with a reason of its own is a page as well, and shown like one.
    document.addEventListener("htmx:beforeSwap", (event) => {
        const { xhr } = event.detail;
        if ([413, 507, 400, 500].includes(xhr.status) && xhr.responseText.includes("data-upload-trouble")) {
            event.detail.shouldSwap = true;
            event.detail.isError = false;
        }
    });
    const broke = (event) => {
        if (event.target.matches("form[data-upload]")) {
            part("progress").hidden = true;
            say("The file did not arrive. Is the line up, and are you still logged in? Open the page again and try once more.");
        }
    };
    document.addEventListener("htmx:responseError", broke);
    document.addEventListener("htmx:sendError", broke);
    document.addEventListener("htmx:sendAbort", broke);
})();
