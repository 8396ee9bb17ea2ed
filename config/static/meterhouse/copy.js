// data-copy="#id": copies that element's text. data-forget-page="url": reloading leads there instead of sending the form again.
document.querySelectorAll("[data-copy]").forEach((button) => {
    const source = document.querySelector(button.dataset.copy);
    button.addEventListener("click", async () => {
        try {
            await navigator.clipboard.writeText(source.textContent);
            button.textContent = "Copied";
        } catch {
            // Without a secure connection browsers refuse the clipboard: select it, so that one keystroke copies.
            const range = document.createRange();
            range.selectNodeContents(source);
            const selection = window.getSelection();
            selection.removeAllRanges();
            selection.addRange(range);
            button.textContent = "Selected: press Ctrl+C";
        }
    });
});
document.querySelectorAll("[data-forget-page]").forEach((element) => {
    window.history.replaceState(null, "", element.dataset.forgetPage);
});
