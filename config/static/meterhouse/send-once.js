// A form with data-send-once leaves once: a double click would only ask the server the same thing twice.
document.querySelectorAll("form[data-send-once]").forEach((form) => {
    form.addEventListener("submit", (event) => {
        if (form.dataset.sent) {
            event.preventDefault();
            return;
        }
        form.dataset.sent = "yes";
    });
});
// A page that comes back from the browser's memory may be sent again.
window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-send-once]").forEach((form) => delete form.dataset.sent);
});
