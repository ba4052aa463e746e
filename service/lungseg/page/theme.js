// Light or dark: as the system has it, until somebody says otherwise; that is forgotten with the tab.
const THEME = "lungseg-theme";
const OFFERS = {light: "Dark colours", dark: "Light colours"};

/** Paints the page, and lets a button change it; `painted(theme)` hears of each change. */
export function listenForTheme(button, painted = () => {}) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = stored();
  const paint = () => {
    const theme = chosen || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", OFFERS[theme]);
    button.title = OFFERS[theme];
    painted(theme);
  };
  dark.addEventListener("change", paint);
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    stored(chosen);
    paint();
  });
  paint();
}

/** What was chosen, or what is chosen now; a browser may keep nothing at all. */
function stored(theme = "") {
  try {
    if (theme) sessionStorage.setItem(THEME, theme);
    return sessionStorage.getItem(THEME);
  } catch {
    return theme;
  }
}
