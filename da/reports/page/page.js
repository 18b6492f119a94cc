"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  const choose = {
    selection(key) {
      for (const part of all("[data-selection]")) part.classList.toggle("shown", part.dataset.selection === key);
    },
    interval(key) {
      for (const row of all("tr[data-interval]")) row.classList.toggle("off", key !== "both" && row.dataset.interval !== key);
      for (const mark of all("g[data-kind]")) mark.classList.toggle("off", key !== "both" && mark.dataset.kind !== "task" && mark.dataset.kind !== key);
    },
  };
  for (const button of all("[data-choose]")) {
    button.addEventListener("click", () => {
      for (const other of all("button", button.parentElement)) other.setAttribute("aria-pressed", String(other === button));
      choose[button.dataset.choose](button.dataset.key);
    });
  }
  for (const scores of all("[data-scores]")) {
    scores.addEventListener("change", () => {
      const button = scores.previousElementSibling;
      button.dataset.key = scores.value;
      button.click();
    });
  }
  for (const bar of all(".switches")) bar.hidden = false;
  const first = document.querySelector("[data-choose=selection]");
  if (first) choose.selection(first.dataset.key);

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.value;
    const text = given === undefined ? cell.textContent.trim() : given;
    const number = Number(text);
    if (text === "–" || (given === undefined && cell.classList.contains("absent"))) return null;
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    heads.forEach((head, column) => {
      const button = head.querySelector(".sort");
      if (!button) return;
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        // Numbers begin with the highest; the third click brings the order of the grid back.
        const numeric = rows.some((row) => typeof valueOf(row, column) === "number");
        const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = order[order.indexOf(before) + 1];
        for (const other of heads) other.removeAttribute("aria-sort");
        const sorted = [...rows];
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          sorted.sort((one, other) => {
            const a = valueOf(one, column);
            const b = valueOf(other, column);
            if (a === null || b === null) return (a === null) - (b === null);
            return sign * compare(a, b);
          });
        }
        body.append(...sorted);
      });
    });
  }

  for (const filter of all(".filter")) {
    const input = filter.querySelector("input");
    const said = filter.querySelector("[role=status]");
    const rows = all("table.runs tbody tr");
    // What a run opens to is not searched: settings hold every name.
    const texts = rows.map((row) => [...row.cells].slice(0, -1).map((cell) => cell.textContent).join(" ").toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      said.textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
    filter.hidden = false;
  }

  addEventListener("beforeprint", () => {
    for (const part of all("#curves details, #classes details, #pictures details, #comparison details, #missing details, #runs > details")) {
      if (!part.open) {
        part.open = true;
        part.dataset.printed = "";
      }
    }
  });
  addEventListener("afterprint", () => {
    for (const part of all("details[data-printed]")) {
      part.open = false;
      delete part.dataset.printed;
    }
  });
})();
