
(() => {  // the map: one panel a space, the same images in each
  const source = document.getElementById("map-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const id = (name) => document.getElementById(name);
  const pictures = id("map-pictures");
  const count = data.vertical.length, COLOURS = 9, SHAPES = ["disc", "square", "triangle", "diamond"];
  const shown = data.verticals.map(() => true);
  const siblings = new Map();
  data.product.forEach((product, i) => {
    if (product < 0) return;
    if (!siblings.has(product)) siblings.set(product, []);
    siblings.get(product).push(i);
  });
  let hovered = -1, tipOf = null, matches = null, colours = [], ink = "", paper = "";

  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    colours = Array.from({ length: COLOURS }, (_, i) => style.getPropertyValue(`--v${i}`).trim());
    ink = style.getPropertyValue("--ink").trim();
    paper = style.getPropertyValue("--card").trim();
  };
  const colour = (vertical) => colours[vertical % COLOURS];
  const shape = (vertical) => SHAPES[vertical % SHAPES.length];
  const pictured = data.picture.filter((place) => place >= 0).length;
  const hasPicture = (i) => data.picture[i] >= 0;
  const drawPicture = (to, i, x, y, size) => {
    const cell = data.cell, at = data.picture[i];
    // Half a pixel inside the cell, or smoothing mixes in its neighbours.
    const left = cell * (at % data.columns) + .5, top = cell * Math.floor(at / data.columns) + .5;
    to.drawImage(pictures, left, top, cell - 1, cell - 1, x, y, size, size);
  };
  const everyone = Array.from({ length: count }, (_, i) => i);
  const order = () => (matches ? [...everyone.filter((i) => !matches.has(i)), ...matches] : everyone);  // found ones on top

  const panel = (canvas, places) => {
    const pen = canvas.getContext("2d"), tip = canvas.parentElement.querySelector(".tip");
    let width = 0, height = 0, fit = 1, zoom = 1, panX = 0, panY = 0, waiting = false;
    const screenX = (i) => width / 2 + panX + (places.x[i] / data.grid) * fit * zoom;
    const screenY = (i) => height / 2 + panY - (places.y[i] / data.grid) * fit * zoom;
    const inView = (x, y) => x > -40 && y > -40 && x < width + 40 && y < height + 40;
    // A path for each of some thousand points is slow: they are copies of one drawing a vertical.
    const stamps = new Map();
    const stamp = (vertical, r) => {
      const key = [vertical, r, devicePixelRatio, colour(vertical), paper].join();
      if (!stamps.has(key)) {
        const sheet = document.createElement("canvas"), half = Math.ceil(r * 1.25 + 1);
        sheet.width = sheet.height = 2 * half * devicePixelRatio;
        const brush = sheet.getContext("2d");
        brush.scale(devicePixelRatio, devicePixelRatio);
        trace(shape(vertical), half, half, r, brush);
        brush.fillStyle = colour(vertical);
        brush.fill();
        brush.strokeStyle = paper;
        brush.lineWidth = .6;
        brush.stroke();
        stamps.set(key, { sheet, half });
      }
      return stamps.get(key);
    };
    const trace = (kind, x, y, r, pen) => {
      pen.beginPath();
      if (kind === "disc") pen.arc(x, y, r, 0, 2 * Math.PI);
      else if (kind === "square") pen.rect(x - r * .88, y - r * .88, r * 1.76, r * 1.76);
      else if (kind === "triangle") { pen.moveTo(x, y - r * 1.2); pen.lineTo(x + r * 1.1, y + r * .85); pen.lineTo(x - r * 1.1, y + r * .85); pen.closePath(); }
      else { pen.moveTo(x, y - r * 1.25); pen.lineTo(x + r * 1.25, y); pen.lineTo(x, y + r * 1.25); pen.lineTo(x - r * 1.25, y); pen.closePath(); }
    };
    // Pictures replace the points once there is room for them.
    const pictureSize = () => {
      const size = Math.sqrt((width * height) / pictured) * zoom * .34;
      return size < 18 ? 0 : Math.min(size, data.cell);
    };

    const draw = () => {
      waiting = false;
      pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      pen.clearRect(0, 0, width, height);
      const size = pictures.complete ? pictureSize() : 0;
      const radius = Math.round(10 * Math.max(2.2, Math.min(3.2, width / 240)) * Math.min(1.6, Math.sqrt(zoom))) / 10;
      const [plain, found] = [1, 1.7].map((scale) => data.verticals.map((_, vertical) => stamp(vertical, radius * scale)));
      for (const i of order()) {
        const x = screenX(i), y = screenY(i), vertical = data.vertical[i];
        if (!shown[vertical] || !inView(x, y)) continue;
        pen.globalAlpha = matches && !matches.has(i) ? .1 : 1;
        if (size && hasPicture(i)) {
          pen.fillStyle = colour(vertical);
          pen.fillRect(x - size / 2 - 2, y - size / 2 - 2, size + 4, size + 4);
          drawPicture(pen, i, x - size / 2, y - size / 2, size);
        } else {
          const { sheet, half } = matches && matches.has(i) ? found[vertical] : plain[vertical];
          pen.drawImage(sheet, x - half, y - half, 2 * half, 2 * half);
        }
      }
      pen.globalAlpha = 1;
      if (hovered >= 0) drawTies(size, radius);
    };
    const drawTies = (size, radius) => {
      const x = screenX(hovered), y = screenY(hovered), product = data.product[hovered];
      const family = (product < 0 ? [hovered] : siblings.get(product)).filter((i) => shown[data.vertical[i]]);
      pen.strokeStyle = ink;
      pen.lineWidth = 1.25;
      for (const i of family) {
        pen.beginPath();
        pen.moveTo(x, y);
        pen.lineTo(screenX(i), screenY(i));
        pen.stroke();
      }
      for (const i of family) {
        const atX = screenX(i), atY = screenY(i), half = size / 2 + 2;
        if (size && hasPicture(i)) {
          drawPicture(pen, i, atX - size / 2, atY - size / 2, size);
          pen.lineWidth = i === hovered ? 3.5 : 2.5;
          pen.strokeRect(atX - half, atY - half, 2 * half, 2 * half);
        } else {
          trace(shape(data.vertical[i]), atX, atY, radius * (i === hovered ? 2.5 : 1.9), pen);
          pen.fillStyle = colour(data.vertical[i]);
          pen.fill();
          pen.lineWidth = i === hovered ? 2.25 : 1.75;
          pen.stroke();
        }
      }
    };
    const redraw = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(draw);
    };
    const resize = () => {
      const box = canvas.getBoundingClientRect();
      if (!box.width) return;
      width = box.width;
      height = box.height;
      canvas.width = Math.round(width * devicePixelRatio);
      canvas.height = Math.round(height * devicePixelRatio);
      fit = Math.min(width, height) / 2 * .95;
      draw();
    };
    const zoomAt = (factor, x = width / 2, y = height / 2) => {
      const next = Math.max(.7, Math.min(60, zoom * factor));
      const ratio = next / zoom;
      panX = (x - width / 2) * (1 - ratio) + panX * ratio;
      panY = (y - height / 2) * (1 - ratio) + panY * ratio;
      zoom = next;
      point(-1);
      redraw();
    };
    const reset = () => { zoom = 1; panX = panY = 0; point(-1); redraw(); };
    const nearest = (x, y) => {
      const reach = Math.max(12, pictureSize() / 2);
      let found = -1, least = reach * reach;
      for (let i = 0; i < count; i++) {
        if (!shown[data.vertical[i]] || (matches && !matches.has(i))) continue;
        const away = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
        if (away <= least) { least = away; found = i; }
      }
      return found;
    };
    const hideTip = () => { tip.hidden = true; };
    const showTip = (i) => {
      tip.hidden = false;
      const [name, where, family] = tip.querySelectorAll("strong, span, small");
      const product = data.product[i], alike = product < 0 ? 0 : siblings.get(product).length - 1;
      name.textContent = product < 0 ? "Unlabelled" : data.products[product];
      where.textContent = [data.verticals[data.vertical[i]], data.brands[data.brand[i]]].filter(Boolean).join(" \u00b7 ");
      family.textContent = product < 0 ? "" : alike === 0 ? "its only image here" : `and ${alike} more of this product`;
      const brush = tip.querySelector("canvas").getContext("2d");
      brush.imageSmoothingQuality = "high";
      brush.clearRect(0, 0, 192, 192);
      tip.querySelector("canvas").hidden = !hasPicture(i);
      if (hasPicture(i)) drawPicture(brush, i, 0, 0, 192);
      const x = screenX(i), y = screenY(i);
      const wide = tip.offsetWidth, high = tip.offsetHeight, side = x + 18 + wide > width ? x - wide - 18 : x + 18;
      // Beside the point; where there is no room, as on a telephone, above or below it.
      const top = side >= 4 ? y - high / 2 : y > height / 2 ? y - high - 18 : y + 18;
      tip.style.left = `${Math.max(4, side)}px`;
      tip.style.top = `${Math.max(4, Math.min(height - high - 4, top))}px`;
    };

    const fingers = new Map();
    let moved = 0;
    const local = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const pointAt = (event) => point(nearest(...local(event)), showTip);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, local(event));
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = local(event), before = fingers.get(event.pointerId);
      if (!before) { pointAt(event); return; }
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      if (fingers.size === 2) {
        const other = [...fingers].find(([key]) => key !== event.pointerId)[1];
        const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
        const is = Math.hypot(x - other[0], y - other[1]);
        if (was > 0) zoomAt(is / was, (x + other[0]) / 2, (y + other[1]) / 2);
      } else if (moved > 4) {
        panX += x - before[0];
        panY += y - before[1];
        point(-1);
        redraw();
      }
      fingers.set(event.pointerId, [x, y]);
    });
    const lift = (event) => {
      if (fingers.delete(event.pointerId) && moved <= 4 && event.type === "pointerup") pointAt(event);
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(-1); });
    canvas.addEventListener("dblclick", (event) => zoomAt(2, ...local(event)));
    canvas.addEventListener("wheel", (event) => {
      // A page that scrolls must not be caught by the map: only a focused map, or Ctrl, zooms.
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .002)), ...local(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (move) { panX += move[0]; panY += move[1]; point(-1); redraw(); }
      else if (event.key === "+" || event.key === "=") zoomAt(1.5);
      else if (event.key === "-") zoomAt(1 / 1.5);
      else if (event.key === "0") reset();
      else if (event.key === "Escape") canvas.blur();
      else return;
      event.preventDefault();
    });
    return { canvas, redraw, resize, zoomAt, reset, hideTip };
  };

  const panels = [...document.querySelectorAll(".map-canvas")].map((canvas, at) => panel(canvas, data.panels[at]));
  const redrawAll = () => panels.forEach((one) => one.redraw());
  // An image pointed at in one panel is marked in all; its tip is shown where the pointer is.
  const point = (i, showTip = null) => {
    if (i === hovered && (i < 0 || showTip === tipOf)) return;
    hovered = i;
    tipOf = showTip;
    panels.forEach((one) => one.hideTip());
    if (i >= 0) showTip(i);
    redrawAll();
  };
  id("map-in").addEventListener("click", () => panels.forEach((one) => one.zoomAt(1.6)));
  id("map-out").addEventListener("click", () => panels.forEach((one) => one.zoomAt(1 / 1.6)));
  id("map-reset").addEventListener("click", () => panels.forEach((one) => one.reset()));

  id("map-find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLocaleLowerCase();
    const names = data.products.map((name) => name.toLocaleLowerCase().includes(wanted));
    matches = wanted ? new Set(data.product.flatMap((product, i) => (product >= 0 && names[product] ? [i] : []))) : null;
    const kinds = wanted ? new Set([...matches].map((i) => data.product[i])).size : 0;
    id("map-found").textContent = !wanted ? "" : matches.size
      ? `${matches.size} image${matches.size === 1 ? "" : "s"} of ${kinds} product${kinds === 1 ? "" : "s"}` : "no such product on the map";
    point(-1);
    redrawAll();
  });

  const legend = id("map-legend"), entries = [];
  const press = () => {
    entries.forEach((entry, vertical) => entry.setAttribute("aria-pressed", String(shown[vertical])));
    point(-1);
    redrawAll();
  };
  const SVG = "http://www.w3.org/2000/svg";
  const outline = { disc: "M7 2a5 5 0 1 0 .01 0z", square: "M2.5 2.5h9v9h-9z", triangle: "M7 1.5L12.6 12H1.4z", diamond: "M7 .8L13.2 7 7 13.2 .8 7z" };
  const all = document.createElement("button");
  all.type = "button";
  all.className = "all";
  all.textContent = "Show all";
  all.addEventListener("click", () => { shown.fill(true); press(); });
  if (data.verticals.length > 1) legend.append(all);
  data.verticals.forEach((name, vertical) => {
    const entry = document.createElement("button"), label = document.createElement("span"), number = document.createElement("small");
    const icon = document.createElementNS(SVG, "svg"), mark = document.createElementNS(SVG, "path");
    icon.setAttribute("viewBox", "0 0 14 14");
    icon.setAttribute("width", "14");
    icon.setAttribute("aria-hidden", "true");
    mark.setAttribute("d", outline[shape(vertical)]);
    mark.setAttribute("style", `fill: var(--v${vertical % COLOURS})`);
    icon.append(mark);
    label.textContent = entry.title = name;
    number.textContent = data.vertical.reduce((sum, one) => sum + (one === vertical), 0).toLocaleString("en");
    entry.type = "button";
    entry.append(icon, label, number);
    entry.addEventListener("click", () => { shown[vertical] = !shown[vertical]; press(); });
    entry.addEventListener("dblclick", () => { shown.fill(false); shown[vertical] = true; press(); });
    entries.push(entry);
    legend.append(entry);
  });

  readColours();
  press();
  panels.forEach((one) => new ResizeObserver(one.resize).observe(one.canvas));
  pictures.addEventListener("load", redrawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redrawAll(); });
})();
