"use strict";
(async () => {
  const PAGE = 50;
  const find = (id) => document.getElementById(id);
  const nonce = document.currentScript.nonce;

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(find(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function tell(problem) {
    find("problem").hidden = false;
    find("problem").textContent = problem;
  }

  // ---- the table of trials ----
  function makeTable({ columns, rows, metric }) {
    const table = find("trials-table");
    const order = { column: -1, sign: 1 };
    let first = 0;
    let shown = rows;
    let unknown = [];
    const names = columns.map((column) => column.name.toLowerCase());
    const aliases = new Map([["value", metric], ["epoch", "best_epoch"], ["last", "last_value"], ["duration_s", "seconds"]]);
    const lower = rows.map((row) => row.join("\n").toLowerCase());

    const head = table.tHead.insertRow();
    columns.forEach((column, index) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.setAttribute("aria-sort", "none");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.name;
      button.addEventListener("click", () => sortBy(index));
      cell.append(button);
      head.append(cell);
    });

    function condition(word) {
      const parts = /^(.+?)(<=|>=|!=|=|<|>)(.*)$/.exec(word);
      if (!parts) return (row, text) => text.includes(word);
      const column = names.indexOf(names.includes(parts[1]) ? parts[1] : aliases.get(parts[1]));
      if (column < 0) {
        unknown.push(parts[1]);
        return () => false;
      }
      const [, , sign, wanted] = parts;
      const asNumber = columns[column].isNumber && wanted !== "" && !Number.isNaN(Number(wanted));
      return (row) => {
        const cell = row[column];
        if (sign === "=") return asNumber ? cell !== "" && Number(cell) === Number(wanted) : cell.toLowerCase() === wanted;
        if (sign === "!=") return asNumber ? Number(cell) !== Number(wanted) || cell === "" : cell.toLowerCase() !== wanted;
        if (!asNumber || cell === "") return false;
        const difference = Number(cell) - Number(wanted);
        return sign === "<" ? difference < 0 : sign === "<=" ? difference <= 0 : sign === ">" ? difference > 0 : difference >= 0;
      };
    }

    function compare(a, b) {
      const [x, y] = [a[order.column], b[order.column]];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last either way
      return order.sign * (columns[order.column].isNumber ? Number(x) - Number(y) : x.localeCompare(y));
    }

    function sortBy(index) {
      order.sign = order.column === index ? -order.sign : 1;
      order.column = index;
      [...head.cells].forEach((cell, at) => {
        cell.setAttribute("aria-sort", at !== index ? "none" : order.sign > 0 ? "ascending" : "descending");
      });
      select();
    }

    function select() {
      unknown = [];
      const conditions = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(condition);
      const state = find("state").value;
      shown = rows.filter((row, at) => (state === "" || row[1] === state) && conditions.every((holds) => holds(row, lower[at])));
      if (order.column >= 0) shown.sort(compare);
      first = 0;
      draw();
    }

    function draw() {
      const part = shown.slice(first, first + PAGE);
      table.tBodies[0].replaceChildren(...part.map((row) => {
        const line = document.createElement("tr");
        row.forEach((text, index) => {
          const cell = document.createElement(index === 0 ? "th" : "td");
          if (index === 0) cell.scope = "row";
          if (columns[index].isNumber) cell.className = "number";
          else if (text.length > 40) cell.className = "long";
          cell.textContent = text;
          line.append(cell);
        });
        return line;
      }));
      const range = part.length ? `${first + 1} to ${first + part.length} of ${shown.length.toLocaleString("en")}` : "none";
      const sorted = order.column < 0 ? "" : `, sorted by ${columns[order.column].name}, ${order.sign > 0 ? "ascending" : "descending"}`;
      const problems = unknown.map((name) => ` There is no column ${name}.`).join("");
      find("shown").textContent = `Trials shown: ${range}${shown.length < rows.length ? ` (${rows.length.toLocaleString("en")} in all)` : ""}${sorted}.${problems}`;
      find("back").disabled = first === 0;
      find("next").disabled = first + PAGE >= shown.length;
    }

    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("filter").addEventListener("input", select);
    find("state").addEventListener("change", select);
    find("back").addEventListener("click", () => { first = Math.max(0, first - PAGE); draw(); });
    find("next").addEventListener("click", () => { first += PAGE; draw(); });
    draw();
  }

  // ---- the charts ----
  function describer({ columns, rows, metric }) {
    const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const byNumber = new Map(rows.map((row) => [row[0], row]));
    const firstParameter = 8;
    return (number) => {
      const row = byNumber.get(String(number));
      if (!row) return `trial ${number}`;
      const lines = [`<b>trial ${row[0]}</b>, ${row[1]}`];
      if (row[2] !== "") lines.push(`${metric} ${row[2]} in epoch ${row[3]} of ${row[6]}`);
      if (row[7] !== "") lines.push(`${row[7]} s`);
      const given = columns.slice(firstParameter, -2).map((column, at) => [column.name, row[firstParameter + at]]);
      lines.push(...given.filter(([, value]) => value !== "").slice(0, 14).map(([name, value]) => escape(`${name} = ${value.slice(0, 40)}`)));
      if (row.at(-2) !== "") lines.push(escape(`${row.at(-2)}: ${row.at(-1).slice(0, 60)}`));
      return lines.join("<br>");
    };
  }

  function coloured(value, colour, key = "") {
    if (Array.isArray(value)) return value.map((one) => coloured(one, colour, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, colour, name)]));
    }
    return /color$/.test(key) && typeof value === "string" && value.startsWith("--") ? colour(value) : value;
  }

  function laidOut(layout, colour, { phone, height, printed }) {
    const axis = {
      automargin: true, gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
      tickcolor: colour("--line"), tickfont: { size: phone ? 11 : 12 },
    };
    const styled = coloured(layout, colour);
    return {
      paper_bgcolor: colour("--card"), plot_bgcolor: colour("--card"),
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--ink"), font: { color: colour("--ink"), size: 12 }, align: "left", namelength: 0 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left" },
      margin: { l: 10, r: 16, t: 16, b: 10, pad: 2 },
      hovermode: "closest",
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      height,
      ...(printed ? { width: printed, autosize: false } : { autosize: true }),
      ...styled,
      xaxis: { ...axis, ...styled.xaxis },
      yaxis: { ...axis, ...styled.yaxis },
    };
  }

  function makeCharts(data) {
    const describe = describer(data);
    const plots = [...document.querySelectorAll("[data-chart]")];
    for (const { traces } of Object.values(data.charts)) {
      for (const trace of traces) {
        if (!trace.customdata) continue;
        trace.text = trace.customdata.map(describe);
        trace.hovertemplate = "%{text}<extra></extra>";
        if (trace.type === "bar") trace.textposition = "none";
      }
    }
    function draw(printed) {
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      const phone = innerWidth < 640;
      for (const plot of plots) {
        const { traces, layout } = data.charts[plot.dataset.chart];
        const height = Number(plot.dataset.height);
        const width = printed && Math.min(plot.parentElement.clientWidth, plot.closest(".together") ? 330 : 680);
        Plotly.react(plot, coloured(traces, colour), laidOut(layout, colour, { phone, height, printed: width }), {
          displayModeBar: false, responsive: true, doubleClick: "reset",
        });
      }
    }
    draw(false);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
    addEventListener("beforeprint", () => draw(true));
    addEventListener("afterprint", () => draw(false));
  }

  try {
    const data = JSON.parse(await unpack("data"));
    makeTable(data);
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await unpack("plotly");
    document.head.append(script);
    makeCharts(data);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    tell(`Charts cannot be drawn in this browser (${error}); it may be older than 2023.`);
  }
})();
