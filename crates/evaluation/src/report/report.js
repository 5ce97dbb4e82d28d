// Sortable and filterable tables, and charts. The replay is started last.
"use strict";

const sortable = (table) => {
  const body = table.tBodies[0];
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const number = Number(cell.dataset.v ?? NaN);
    return Number.isNaN(number) ? cell.textContent.trim() : number;
  };
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [left, right] = [valueOf(a, column), valueOf(b, column)];
        const numbers = typeof left === "number" && typeof right === "number";
        const order = numbers ? left - right : String(left).localeCompare(String(right));
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
};

const filterable = (section) => {
  const [kind, scenario, text] = ["kind", "scenario", "text"].map((name) =>
    section.querySelector(`[data-filter="${name}"]`));
  const rows = [...section.querySelectorAll("tbody tr")];
  const count = section.querySelector("[data-count]");
  const apply = () => {
    let shown = 0;
    const query = text.value.trim().toLowerCase();
    for (const row of rows) {
      const matches = (!kind.value || row.dataset.kind === kind.value)
        && (!scenario.value || row.dataset.scenario === scenario.value)
        && (!query || row.textContent.toLowerCase().includes(query));
      row.hidden = !matches;
      shown += matches ? 1 : 0;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  for (const field of [kind, scenario, text]) field.addEventListener("input", apply);
  apply();
};

// Charts use the page's colors, in light and dark scheme.
const drawCharts = (charts) => {
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(name).trim();
  const colors = ["--s1", "--s2", "--s3", "--s4", "--s5", "--bad", "--soft"].map(ink);
  for (const { id, figure } of charts) {
    const element = document.getElementById(id);
    const layout = structuredClone(figure.layout || {});
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: ink("--soft"), family: "system-ui, sans-serif", size: 12 };
    layout.colorway = colors;
    layout.autosize = true;
    layout.margin = { l: 60, r: 16, t: 12, b: 48 };
    layout.legend = { ...layout.legend, orientation: "h", y: -0.22 };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(layout[axis], { gridcolor: ink("--grid"), zerolinecolor: ink("--grid"), automargin: true });
    }
    Plotly.react(element, structuredClone(figure.data), layout, { responsive: true, displayModeBar: false });
  }
};

document.addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.querySelectorAll("table.sorts").forEach(sortable);
  document.querySelectorAll("section.filters").forEach(filterable);
  Viewer.start(data.routes);
  drawCharts(data.charts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(data.charts));
});
