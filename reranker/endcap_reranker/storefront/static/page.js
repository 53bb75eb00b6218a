// What belongs to the page and not to a search: light and dark, and the key that leads to the search box.

export function wirePage($) {
  const root = document.documentElement;
  const saved = localStorage.getItem("endcap-theme");
  if (saved) root.dataset.theme = saved;
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("endcap-theme", root.dataset.theme);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName) && !$("product").open) {
      event.preventDefault();
      $("q").focus();
      $("q").select();
    }
  });
}
