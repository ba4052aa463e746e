// Light or dark: as the system has it, until somebody says otherwise; that is forgotten with the tab.
const THEME = "lungseg-theme";
const OFFERS = {light: "Dark colours", dark: "Light colours"};

/** Paints the page, and lets a button change it; `painted(theme)` hears of each change. */
export function listenForTheme(button, painted = () => {}) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const theme = sessionStorage.getItem(THEME) || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", OFFERS[theme]);
    button.title = OFFERS[theme];
    painted(theme);
  };
  dark.addEventListener("change", paint);
  button.addEventListener("click", () => {
    sessionStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    paint();
  });
  paint();
}
