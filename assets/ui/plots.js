// One listener for every clickable chart of the page: Gradio's plot component reports no clicks of its own.
// Runs as js_on_load of an empty gr.HTML; `element`, `trigger`, `props` and `watch` are Gradio's.
// Data reaches the document by textContent only.
(() => {
  const GRID = "explore-grid", MAPS = "matrix-maps", TRADE = "trade-off";
  let cursor = null; // {block, row}: the cell that is outlined in the grid

  const plotIn = (id) => document.querySelector(`#${id} .js-plotly-plot`);
  const namesOf = (plot) => (plot.data[0].customdata || []).map((row) => row[0][0]);

  // The first of several quick moves goes to the server at once, the others as one when PAUSE is over: nobody waits, nothing piles up.
  // Until the server's selection is what was sent last, it is an older one and moves nothing; a choice that it refuses gives way after PATIENCE.
  const PAUSE = 250, PATIENCE = 10000;
  function paced(name, follow) {
    let timer = 0, latest = null, sent = null, late = 0;
    const send = (data) => {
      latest = null;
      sent = data;
      timer = setTimeout(() => { timer = 0; if (latest) send(latest); else follow(); }, PAUSE);
      clearTimeout(late);
      late = setTimeout(() => { sent = null; follow(); }, PATIENCE);
      trigger(name, data);
    };
    const isOld = (value) => {
      if (sent && !timer && Object.keys(sent).every((key) => sent[key] === value[key])) sent = null;
      return sent !== null;
    };
    return { choose: (data) => (timer ? (latest = data) : send(data)), isOld };
  }
  const cells = paced("cell", () => follow()), spots = paced("spot", () => followSpot());

  // ---- the grid: click, keys, outline ---------------------------------------------------------------------------------------
  function pick(plot, block, row) {
    cursor = { block, row };
    outline(plot);
    cells.choose({ block, matrix: namesOf(plot)[row] });
  }

  function outline(plot) {
    const layout = plot._fullLayout;
    if (!cursor || !layout || !layout.xaxis) return;
    let box = plot.querySelector(":scope > .salq-cell");
    if (!box) {
      box = document.createElement("div");
      box.className = "salq-cell";
      box.setAttribute("aria-hidden", "true");
      plot.appendChild(box);
    }
    const x = layout.xaxis, y = layout.yaxis;
    const left = x.l2p(cursor.block - 0.5), right = x.l2p(cursor.block + 0.5);
    const one = y.l2p(cursor.row - 0.5), two = y.l2p(cursor.row + 0.5);
    box.style.left = `${x._offset + left}px`;
    box.style.width = `${right - left}px`;
    box.style.top = `${y._offset + Math.min(one, two)}px`;
    box.style.height = `${Math.abs(two - one)}px`;
  }

  function attachGrid(plot) {
    plot.on("plotly_click", (event) => {
      const [row, block] = event.points[0].pointIndex || event.points[0].pointNumber;
      pick(plot, block, row);
    });
    const redrawn = () => {
      const x = plot._fullLayout.xaxis;
      plot.classList.toggle("salq-narrow", x.l2p(1) - x.l2p(0) < 24); // numbers would not fit their cells
      outline(plot);
    };
    plot.on("plotly_afterplot", redrawn);
    redrawn();
    const frame = document.getElementById(GRID);
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Grid of all matrices. Arrow keys choose a matrix; its maps follow below.");
    if (!frame.salqKeys) {
      frame.salqKeys = true;
      frame.addEventListener("keydown", onKey);
    }
    follow();
  }

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function onKey(event) {
    const plot = plotIn(GRID), move = MOVES[event.key];
    if (!plot || !move || !cursor) return;
    event.preventDefault();
    const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);
    const columns = plot.data[0].x.length, rows = namesOf(plot).length;
    pick(plot, clamp(cursor.block + move[0], columns), clamp(cursor.row + move[1], rows));
  }

  // The server's selection (a link, a picker, another tab) moves the outline.
  function follow() {
    const plot = plotIn(GRID), chosen = props.value;
    if (!plot || !chosen || !plot.data || cells.isOld(chosen)) return;
    const row = namesOf(plot).indexOf(chosen.matrix);
    if (row >= 0) {
      cursor = { block: chosen.block, row };
      outline(plot);
    }
  }

  // ---- the maps: one hover names the cell in every panel --------------------------------------------------------------------
  function attachMaps(plot) {
    const tip = document.createElement("div");
    tip.className = "salq-tip";
    tip.hidden = true;
    plot.appendChild(tip);
    plot.on("plotly_hover", (event) => showTip(plot, tip, event));
    plot.on("plotly_unhover", () => hideTip(plot, tip));
    plot.on("plotly_relayouting", () => hideTip(plot, tip));
    plot.on("plotly_click", (event) => {
      const [row, col] = event.points[0].pointIndex || event.points[0].pointNumber;
      spot = { row, col };
      chooseSpot(plot);
    });
    plot.on("plotly_afterplot", () => frameSpot(plot));
    const frame = document.getElementById(MAPS);
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Maps of the matrix. Arrow keys choose a group of weights, which is drawn below; with Shift, ten cells at once.");
    if (!frame.salqKeys) {
      frame.salqKeys = true;
      frame.addEventListener("keydown", onSpotKey);
    }
    followSpot();
  }

  // One group of the matrix is selected: `spot` is its cell of the maps. A click and the arrow keys move it.
  let spot = null;
  const cellOf = (edges, value) => Math.max(edges.findIndex((edge, i) => i + 1 < edges.length && value >= edge && value < edges[i + 1]), 0);

  function chooseSpot(plot) {
    const meta = plot.layout.meta;
    frameSpot(plot);
    spots.choose({ row: meta.rows[spot.row], group: meta.group_size ? Math.floor(meta.cols[spot.col] / meta.group_size) : 0 });
  }

  function onSpotKey(event) {
    const plot = plotIn(MAPS), move = MOVES[event.key];
    if (!plot || !move || !spot) return;
    event.preventDefault();
    const meta = plot.layout.meta, far = event.shiftKey ? 10 : 1;
    const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);
    const wide = meta.group_size ? Math.max(Math.round(meta.group_size / (meta.cols[1] - meta.cols[0])), 1) : 1; // cells of one group
    spot = { row: clamp(spot.row + move[1] * far, meta.rows.length - 1), col: clamp(spot.col + move[0] * far * wide, meta.cols.length - 1) };
    chooseSpot(plot);
  }

  function followSpot() {
    const plot = plotIn(MAPS), chosen = props.value;
    if (!plot || !plot.layout || !plot.layout.meta || !chosen || spots.isOld(chosen)) return;
    const meta = plot.layout.meta, column = meta.group_size ? chosen.group * meta.group_size : 0;
    spot = { row: cellOf(meta.rows, chosen.row || 0), col: cellOf(meta.cols, column || 0) };
    frameSpot(plot);
  }

  // A frame around the whole group on every panel.
  function frameSpot(plot) {
    const meta = plot.layout && plot.layout.meta;
    if (!spot || !meta || !meta.rows || spot.row + 1 >= meta.rows.length || spot.col + 1 >= meta.cols.length) return;
    const size = meta.group_size, first = meta.cols[spot.col];
    const from = size ? Math.floor(first / size) * size : meta.cols[0], to = size ? Math.min(from + size, meta.cols[meta.cols.length - 1]) : meta.cols[meta.cols.length - 1];
    boxes(plot, meta, "salq-spot", [meta.rows[spot.row], meta.rows[spot.row + 1]], [from, to]);
  }

  function showTip(plot, tip, event) {
    const meta = plot.layout.meta, point = event.points[0];
    const [row, col] = point.pointIndex || point.pointNumber;
    const span = (edges, i) => (edges[i + 1] - edges[i] === 1 ? `${edges[i]}` : `${edges[i]} to ${edges[i + 1] - 1}`);
    const lines = [`outputs ${span(meta.rows, row)}, inputs ${span(meta.cols, col)}`];
    meta.panels.forEach((panel, i) => {
      const code = plot.calcdata[i][0].z[row][col];
      const number = 10 ** (panel.low + ((panel.high - panel.low) * code) / 254);
      const value = code > 254 ? "not finite" : number < 1e-3 ? number.toExponential(1) : number.toPrecision(2);
      const edge = code === 0 ? "at most " : code === 254 ? "at least " : "";
      lines.push(`${panel.title}: ${edge}${value}`);
    });
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    tip.hidden = false;
    const layout = plot._fullLayout;
    const middle = layout.xaxis.l2p((meta.cols[col] + meta.cols[col + 1]) / 2) + layout.xaxis._offset;
    const y = layout[point.yaxis._name];
    const at = y.l2p((meta.rows[row] + meta.rows[row + 1]) / 2) + y._offset;
    tip.style.left = `${Math.min(Math.max(middle, 90), plot.clientWidth - 90)}px`;
    tip.style.top = `${at}px`;
    boxes(plot, meta, "salq-ghost", [meta.rows[row], meta.rows[row + 1]], [meta.cols[col], meta.cols[col + 1]]);
  }

  // A frame of a class around rows and inputs, on every panel.
  function boxes(plot, meta, kind, rows, cols) {
    const layout = plot._fullLayout;
    meta.panels.forEach((_, i) => {
      const suffix = i ? i + 1 : "";
      const x = layout[`xaxis${suffix}`], y = layout[`yaxis${suffix}`];
      if (!x || !y) return;
      let box = plot.querySelector(`:scope > .${kind}[data-panel="${i}"]`);
      if (!box) {
        box = document.createElement("div");
        box.className = kind;
        box.setAttribute("aria-hidden", "true");
        box.dataset.panel = i;
        plot.appendChild(box);
      }
      const inside = (axis, value) => Math.min(Math.max(axis.l2p(value), 0), axis._length);
      const left = inside(x, cols[0]), right = inside(x, cols[1]);
      const top = inside(y, rows[0]), bottom = inside(y, rows[1]);
      Object.assign(box.style, {
        display: right > left && top !== bottom ? "block" : "none",
        left: `${x._offset + left - 3}px`,
        width: `${right - left + 6}px`,
        top: `${y._offset + Math.min(top, bottom) - 3}px`,
        height: `${Math.abs(bottom - top) + 6}px`,
      });
    });
  }

  function hideTip(plot, tip) {
    tip.hidden = true;
    plot.querySelectorAll(":scope > .salq-ghost").forEach((box) => (box.style.display = "none"));
  }

  // ---- the trade-off chart: a point opens its run ---------------------------------------------------------------------------
  function attachTrade(plot) {
    plot.on("plotly_click", (event) => {
      const run = event.points[0].customdata && event.points[0].customdata[0];
      if (run) trigger("point", { run });
    });
    plot.on("plotly_afterplot", () => declutter(plot));
    declutter(plot);
  }

  // Python writes labels where a wide chart has room for them; on a narrow one, a label that would lie on another one is left to hovering.
  function declutter(plot) {
    const kept = [...plot.querySelectorAll(".annotation")].map((note) => note.getBoundingClientRect());
    for (const label of plot.querySelectorAll(".textpoint text")) {
      const box = label.getBoundingClientRect();
      const lies = kept.some((one) => box.left < one.right && one.left < box.right && box.top < one.bottom && one.top < box.bottom);
      label.style.visibility = lies ? "hidden" : "";
      if (!lies) kept.push(box);
    }
  }

  // ---- numbers as CSV: what a chart has drawn, with the units that the figure names --------------------------------------------
  const inert = (text) => (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text); // a run's title is no formula of a spreadsheet
  const quoted = (cell) => (/[",\n\r]/.test(`${cell}`) ? `"${inert(`${cell}`).replaceAll('"', '""')}"` : inert(`${cell}`));
  const plain = (value) => (typeof value === "number" ? (Number.isFinite(value) ? String(Number(value.toPrecision(7))) : "") : (value ?? ""));

  function rowsOf(plot) {
    const meta = plot.layout.meta || {}, rows = [];
    plot._fullData.forEach((trace, i) => {
      if (trace.type !== "heatmap") {
        const xs = trace.x || [], ys = trace.y || [];
        for (let j = 0; j < xs.length; j += 1) if (xs[j] !== null && ys[j] !== null) rows.push([trace.name, xs[j], ys[j]]);
        return;
      }
      const z = plot.calcdata[i][0].z;
      for (let row = 0; row < z.length; row += 1) {
        for (let col = 0; col < z[row].length; col += 1) {
          const value = z[row][col];
          if (meta.rows) rows.push([trace.name, meta.rows[row], meta.rows[row + 1] - 1, meta.cols[col], meta.cols[col + 1] - 1, decoded(meta.panels[i], value)]);
          else if (meta.text) rows.push([trace.name, at(trace.x, trace.x0, col), at(trace.y, trace.y0, row), trace.text[row][col]]);
          else rows.push([trace.name, at(trace.x, trace.x0, col), at(trace.y, trace.y0, row), meta.log && Number.isFinite(value) ? 10 ** value : value]);
        }
      }
    });
    return rows;
  }
  const at = (values, first, i) => (values && values.length ? values[i] : (first || 0) + i);
  const decoded = (panel, code) => (code > 254 ? "" : 10 ** (panel.low + ((panel.high - panel.low) * code) / 254));

  function saveCsv(id) {
    const plot = plotIn(id);
    if (!plot || !plot._fullData) return;
    const meta = plot.layout.meta || {}, axes = plot._fullLayout;
    let header = meta.csv || ["series", axes.xaxis.title.text || "x", axes.yaxis.title.text || "y"];
    if (meta.rows) header = [...header.slice(0, -1), `value (${meta.panels.map((panel) => `${panel.title}: ${panel.unit}`).join("; ")})`];
    const text = [header, ...rowsOf(plot)].map((row) => row.map((cell) => quoted(plain(cell))).join(",")).join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
    link.download = `${(plot._context && plot._context.toImageButtonOptions && plot._context.toImageButtonOptions.filename) || id}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 4000);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button.salq-csv");
    if (button) saveCsv(button.dataset.plot);
  });

  // ---- plots come and go: attach to each one once ---------------------------------------------------------------------------
  const ROOMS = [[GRID, attachGrid], [MAPS, attachMaps], [TRADE, attachTrade]];
  function scan() {
    for (const button of document.querySelectorAll("button.salq-csv")) button.hidden = !plotIn(button.dataset.plot);
    for (const [id, attach] of ROOMS) {
      const plot = plotIn(id);
      if (plot && plot.on && plot._fullLayout && !plot.salqAttached) {
        plot.salqAttached = true;
        attach(plot);
      }
    }
  }
  if (!window.salqScan) {
    let waiting = 0;
    new MutationObserver(() => {
      clearTimeout(waiting);
      waiting = setTimeout(() => window.salqScan(), 80);
    }).observe(document.body, { childList: true, subtree: true });
  }
  window.salqScan = scan;
  window.addEventListener("resize", () => setTimeout(() => plotIn(GRID) && outline(plotIn(GRID)), 200));
  window.addEventListener("resize", () => setTimeout(() => plotIn(MAPS) && frameSpot(plotIn(MAPS)), 200));
  watch("value", () => (follow(), followSpot()));
  scan();

  // A narrow screen belongs to the tabs: salq.css keeps the sidebar away until its own button is pressed. Gradio mounts it open, at a moment
  // of its own, so the first press shows what is "open" already; later presses are Gradio's.
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".sidebar .toggle-button"), sidebar = button && button.closest(".sidebar");
    if (!sidebar || sidebar.dataset.wanted) return;
    sidebar.dataset.wanted = "yes";
    if (window.matchMedia("(max-width: 768px)").matches && sidebar.classList.contains("open")) event.stopPropagation();
  }, true);
})();
