"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const text = value => value === null || value === undefined ? "–"
    : Number.isInteger(value) ? value.toLocaleString("en") : Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en")
    : String(Number(value.toPrecision(4)));

  function say(event, title, lines) {
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = title;
    tip.append(head);
    for (const line of lines) {
      const row = document.createElement("div");
      row.textContent = line;
      tip.append(row);
    }
    const box = tip.getBoundingClientRect(), wide = innerWidth - box.width - 8;
    const left = event.clientX + 16 > wide ? event.clientX - box.width - 16 : event.clientX + 16;
    tip.style.left = Math.max(8, Math.min(left, wide)) + "px";
    tip.style.top = Math.max(8, Math.min(event.clientY + 16, innerHeight - box.height - 8)) + "px";
    tip.style.visibility = "visible";
  }

  function place(svg, event) {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    return [(event.clientX - box.left) * view.width / box.width, (event.clientY - box.top) * view.height / box.height];
  }

  const scopeOf = element => element.closest(".linked") ?? element.closest("figure");
  const hidden = (scope, toggle) => new Set(
    [...scope.querySelectorAll(`button[data-toggle=${toggle}][aria-pressed=false]`)].map(button => button.dataset.value));

  function light(scope, key) {
    for (const svg of scope.querySelectorAll("svg.chart")) {
      svg.classList.toggle("dim", key !== null);
      for (const group of svg.querySelectorAll(".s")) group.classList.toggle("near", group.dataset.key === key);
    }
  }

  for (const button of document.querySelectorAll("button[data-toggle]")) {
    const scope = scopeOf(button), pressed = () => button.getAttribute("aria-pressed") === "true";
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!pressed()));
      const keys = hidden(scope, "key"), kinds = hidden(scope, "kind");
      for (const group of scope.querySelectorAll(".s")) {
        group.classList.toggle("off", keys.has(group.dataset.key) || kinds.has(group.dataset.kind));
      }
      light(scope, null);
    });
    if (button.dataset.toggle === "key") {
      button.addEventListener("pointerenter", () => { if (pressed()) light(scope, button.dataset.value); });
      button.addEventListener("pointerleave", () => light(scope, null));
    }
  }

  for (const [ident, chart] of Object.entries(data)) {
    const figure = document.getElementById(ident), svg = figure.querySelector("svg.chart"), scope = scopeOf(svg);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    cursor.setAttribute("class", "cursor");
    svg.append(cursor);
    const leave = () => {
      tip.style.visibility = "hidden";
      cursor.removeAttribute("r");
      light(scope, null);
    };

    if (chart.heat) {
      const bytes = Uint8Array.from(atob(chart.values), c => c.charCodeAt(0));
      const values = new Float32Array(bytes.buffer), count = chart.rows.length;
      svg.addEventListener("pointermove", event => {
        const [x, y] = place(svg, event), { edges, top, bottom } = chart;
        if (x < edges[0] || x > edges[edges.length - 1] || y < top || y > bottom) return leave();
        const t = Math.max(0, edges.findIndex(edge => edge > x) - 1);
        const mode = Math.floor((chart.count + 1) ** ((y - top) / (bottom - top))) - 1;
        const k = Math.max(0, chart.rows.findLastIndex(row => row <= mode));
        const value = values[t * count + k];
        say(event, chart.names[k], [
          "step " + text(chart.steps[t]),
          "generated variance " + text(Number.isFinite(value) ? value : null),
          "target " + text(chart.reference[k]),
          "ratio " + text(Number.isFinite(value) && chart.reference[k] ? value / chart.reference[k] : null),
        ]);
      });
      svg.addEventListener("pointerleave", leave);
      continue;
    }

    const several = scope.querySelectorAll("button[data-toggle=key]").length > 1;
    svg.addEventListener("pointermove", event => {
      const [x, y] = place(svg, event);
      const keys = hidden(scope, "key"), kinds = hidden(scope, "kind");
      let best = null, nearest = 40 * 40;
      for (const one of chart.series) {
        if (keys.has(one.key) || kinds.has(one.kind)) continue;
        for (let i = 0; i < one.px.length; i++) {
          const distance = (one.px[i] - x) ** 2 + (one.py[i] - y) ** 2;
          if (distance < nearest) [best, nearest] = [[one, i], distance];
        }
      }
      if (best === null) return leave();
      const [one, i] = best;
      cursor.setAttribute("cx", one.px[i]);
      cursor.setAttribute("cy", one.py[i]);
      cursor.setAttribute("r", 5);
      if (several) light(scope, one.key);
      const lines = [chart.x + ": " + text(one.x[i]), chart.y + ": " + text(one.y[i])];
      if (one.low) lines.push("95 % interval " + text(one.low[i]) + " to " + text(one.high[i]));
      say(event, one.names ? one.names[i] : one.kind && one.kind !== one.name ? `${one.name}, ${one.kind}` : one.name, lines);
    });
    svg.addEventListener("pointerleave", leave);
  }
  addEventListener("scroll", () => { tip.style.visibility = "hidden"; }, { passive: true });
  addEventListener("beforeprint", () => { for (const run of document.querySelectorAll("details.run")) run.open = true; });
})();
