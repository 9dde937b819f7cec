// Dark and light: the system's choice, until somebody chooses here.

const KEY = "corolla-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme(button) {
  apply(stored(), button);
  system.addEventListener("change", () => apply(stored(), button));
  button.addEventListener("click", () => {
    const next = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // a browser that keeps nothing shows it until the page is closed
    }
    apply(next, button);
  });
}

const current = () => document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function apply(chosen, button) {
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  const other = current() === "dark" ? "light" : "dark";
  button.textContent = other === "dark" ? "Dark" : "Light";
  button.setAttribute("aria-label", `Switch to the ${other} theme`);
}
