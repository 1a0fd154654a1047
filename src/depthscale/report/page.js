"use strict";
(() => {
  const root = document.documentElement;
  const store = {
    get() { try { return localStorage.getItem("depthscale-theme"); } catch { return null; } },
    set(theme) { try { localStorage.setItem("depthscale-theme", theme); } catch { /* file: without storage */ } },
  };
  root.classList.add("scripted");
  if (["light", "dark"].includes(store.get())) root.dataset.theme = store.get();

  function themes() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      store.set(root.dataset.theme);
      show();
    });
    system.addEventListener("change", show);
    show();
  }

  function sorting() {
    const table = document.getElementById("layers");
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[1].cells];
    const read = (row, column, numeric) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const compare = (a, b, numeric) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    heads.forEach((head, column) => {
      const numeric = head.classList.contains("n");
      head.querySelector("button").addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        const sign = direction === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => ({ row, value: read(row, column, numeric) }));
        rows.sort((a, b) => {
          const missing = (a.value === null) - (b.value === null);
          const order = missing || a.value === null ? missing : sign * compare(a.value, b.value, numeric);
          return order || a.row.dataset.k - b.row.dataset.k;
        });
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        body.append(...rows.map((entry) => entry.row));
        document.getElementById("sorted").textContent = `Sorted by ${head.textContent}, ${direction}`;
      });
    });
  }

  async function copyText(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // Without the permission, or over plain http: select the text and use the older command.
      const range = document.createRange();
      range.selectNodeContents(element);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      try { return document.execCommand("copy"); } catch { return false; }
    }
  }

  function copying() {
    for (const button of document.querySelectorAll("[data-copy]")) {
      let timer;
      button.addEventListener("click", async () => {
        const done = await copyText(document.getElementById(button.dataset.copy));
        button.textContent = done ? "Copied" : "Selected";
        document.getElementById("sorted").textContent = done ? "Copied" : "Selected: copy with Ctrl and C";
        clearTimeout(timer);
        timer = setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
    }
  }

  function pointing() {
    const heads = [...document.querySelectorAll("#layers thead tr:last-child th")];
    const column = Object.fromEntries(heads.map((head, k) => [head.dataset.key, k]));
    const rows = new Map([...document.querySelectorAll("#layers tbody tr")].map((row) => [Number(row.dataset.k), row]));
    const cellText = (row, key) => row.cells[column[key]].firstChild.textContent.trim();
    const plots = [...document.querySelectorAll(".plot")];
    const tell = (plot, layer) => {
      const row = rows.get(layer);
      const parts = plot.dataset.columns.split(" ").filter((key) => key in column && cellText(row, key) !== "–")
        .map((key) => `${heads[column[key]].textContent} ${cellText(row, key)}`);
      return `layer ${layer} (${cellText(row, "name")}): ${parts.join(", ")}`;
    };
    const point = (layer) => {
      for (const plot of plots) {
        plot.querySelector(".readout").textContent = layer === null ? "" : tell(plot, layer);
        for (const svg of plot.querySelectorAll("svg")) {
          const cursor = svg.querySelector(".cursor");
          cursor.setAttribute("visibility", layer === null ? "hidden" : "visible");
          if (layer === null) continue;
          const [first, last, count] = ["first", "last", "count"].map((key) => Number(svg.dataset[key]));
          const x = first + (last - first) * layer / Math.max(count - 1, 1);
          cursor.setAttribute("x1", x);
          cursor.setAttribute("x2", x);
        }
      }
    };
    for (const svg of document.querySelectorAll(".plot svg")) {
      const [first, last, count] = ["first", "last", "count"].map((key) => Number(svg.dataset[key]));
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
        const layer = Math.round((x - first) / (last - first || 1) * (count - 1));
        point(layer >= 0 && layer < count ? layer : null);
      });
      svg.addEventListener("pointerleave", () => point(null));
    }
  }

  function printing() {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      closed.forEach((details) => { details.open = true; });
    });
    addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));
  }

  document.addEventListener("DOMContentLoaded", () => {
    themes();
    sorting();
    copying();
    pointing();
    printing();
  });
})();
