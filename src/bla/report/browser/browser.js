"use strict";
// What the controls, the keys and the dialogs do.

const byName = (id) => document.getElementById(id);
const dialog = byName("open");
const FIGURE = 190; // CSS pixels

/** The items that pass all filters, in the chosen order; images without the number come last. */
function chosenItems() {
  const least = state.from === "" ? -Infinity : Number(state.from);
  const most = state.to === "" ? Infinity : Number(state.to);
  const limited = state.from !== "" || state.to !== "";
  const chosen = items.filter((item) => {
    if (state.dataset && item.collection.name !== state.dataset) return false;
    if (state.class && !item.collection.labels[item.number].some((label) => item.collection.classes[label] === state.class)) return false;
    if (state.mapped && !mapOf(item, state.method)) return false;
    if (!state.right && !limited) return true;
    const facts = factsOf(item, state.method);
    if (state.right && facts.right !== (state.right === "right")) return false;
    return !limited || (facts.size >= least && facts.size <= most); // no size: neither
  });
  if (!state.sort) return state.smallest ? chosen.reverse() : chosen;
  const values = new Map(chosen.map((item) => [item, factsOf(item, state.method)[state.sort]]));
  const sign = state.smallest ? 1 : -1;
  return chosen.sort((a, b) => {
    const [first, second] = [values.get(a), values.get(b)];
    if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second);
    return sign * (first - second);
  });
}

/** Shows the state: controls, grid, dialog and address. `note` is a sentence in front of the counts. */
function refresh(note = "") {
  shown = chosenItems();
  active = Math.max(0, shown.findIndex((item) => item.id === state.at));
  showControls();
  showStatus(note);
  drawLegend(state.scale);
  redrawGrid();
  scrollToActive();
  showOpen();
  writeAddress();
}

function showControls() {
  for (const name of ["dataset", "class", "right", "from", "to", "method", "sort"]) byName(name).value = state[name];
  for (const name of ["mapped", "smallest"]) byName(name).checked = state[name] === "1";
  for (const radio of document.querySelectorAll("input[name=scale]")) radio.checked = radio.value === state.scale;
  byName("unmark").disabled = !state.marked;
}

function showStatus(note) {
  const missing = state.method ? shown.filter((item) => !mapOf(item, state.method)).length : 0;
  const { title } = methods.find((method) => method.name === state.method) || {};
  const without = missing ? `, ${missing} of them without a map, because ${title} was not computed for them` : "";
  const unsorted = shown.length && state.sort && shown.every((item) => Number.isNaN(factsOf(item, state.method)[state.sort]));
  const order = unsorted ? `; no image has a number for ${state.sort} here, so the files keep their order` : "";
  const firsts = new Set(data.collections.map((collection) => collection.methods[0].title));
  const numbers = state.method ? "" : `; predictions and numbers are those of ${[...firsts].join(", ")}`;
  const marked = markedIds().size;
  const marks = marked ? `; ${marked} marked` : "";
  byName("status").textContent = `${note}${shown.length} of ${items.length} images${without}${order}${numbers}${marks}`;
}

function change(name, value) {
  state[name] = value;
  refresh();
}

function moveTo(place) {
  if (!shown.length) return;
  active = Math.min(shown.length - 1, Math.max(0, place));
  state.at = shown[active].id;
  scrollToActive();
  showOpen();
  writeAddress();
}

/** The image that keys act on. An open one stays when a change of the method takes it out of the filtered images. */
function currentItem() {
  return (state.open && byId.get(state.at)) || shown[active];
}

/** Opens the dialog with every method's map of the current image, or closes it. */
function showOpen() {
  const item = currentItem();
  if (!state.open || !item) {
    if (dialog.open) dialog.close();
    return;
  }
  byName("open-title").textContent = item.file;
  byName("open-mark").checked = markedIds().has(item.id);
  byName("open-scale").checked = state.scale === "one";
  const { disagreement } = factsOf(item, state.method);
  const place = shown[active] === item ? `image ${active + 1} of ${shown.length} shown` : `not among the ${shown.length} images shown`;
  byName("open-text").textContent =
    `${item.collection.name}, true class ${truth(item)}; ${place}; ` +
    `disagreement between methods ${number(disagreement)}`;
  byName("figures").replaceChildren(figure(item, ""), ...methods.map((method) => figure(item, method.name)));
  if (!dialog.open) dialog.showModal();
}

/** The image with the map of a method; blank, and saying so, where the method was not computed. */
function figure(item, name) {
  const element = document.createElement("figure");
  const title = name ? methods.find((method) => method.name === name).title : "image";
  const map = name ? mapOf(item, name) : null;
  element.classList.toggle("chosen", name === state.method);
  if (map || !name) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name ? inWords(item, name) : `The image ${item.file}`);
    draw(canvas, item, map, state.scale, FIGURE);
    element.append(canvas);
  } else {
    const blank = line("not computed for this image", "blank absent");
    blank.style.aspectRatio = item.collection.shape.slice().reverse().join("/");
    element.append(blank);
  }
  const caption = document.createElement("figcaption");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = title;
  button.addEventListener("click", () => change("method", name));
  caption.append(button, ...(map ? figureLines(factsOf(item, name)) : []));
  element.append(caption);
  return element;
}

function figureLines(facts) {
  const lines = [line(predictionText(facts), facts.right === null ? "" : facts.right ? "right" : "wrong")];
  if (facts.explained !== undefined && facts.explained !== facts.predicted) lines.push(line(`map of ${facts.explained}`));
  const numbers = ["loss", "size", "spread"].filter((kind) => !Number.isNaN(facts[kind]));
  lines.push(line(numbers.map((kind) => `${kind} ${number(facts[kind], kind)}`).join(", ")));
  return lines;
}

function setOpen(value) {
  state.open = value ? "1" : "";
  if (value && shown.length) state.at = shown[active].id;
  showOpen();
  writeAddress();
  if (!value) grid.focus();
}

function mark() {
  const item = currentItem();
  if (!item) return;
  toggleMark(item);
  state.at = item.id;
  refresh();
}

/** The images to copy: the marked ones, or all that are shown. */
function selection() {
  const marked = markedIds();
  return marked.size ? items.filter((item) => marked.has(item.id)) : shown;
}

/** A cell of a CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front. */
function csvCell(value) {
  if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
  const text = /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const heads = ["dataset", "file", "image", "true_class", "method", "predicted", "probability", "right", "loss", "size", "spread", "disagreement"];
  const rows = selection().map((item) => {
    const facts = factsOf(item, state.method);
    const right = facts.right === null ? "" : facts.right ? "yes" : "no";
    const numbers = [facts.loss, facts.size, facts.spread, facts.disagreement];
    return [item.collection.name, item.file, item.number, truth(item), facts.method, facts.predicted || "", facts.probability, right, ...numbers];
  });
  return [heads, ...rows].map((row) => `${row.map(csvCell).join(",")}\n`).join("");
}

/** Copies a text; where the browser forbids it, shows the text. */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    showStatus(`Copied ${what} of ${selection().length} images. `);
  } catch {
    byName("copy-text").value = text;
    byName("copy").showModal();
    byName("copy-text").select();
  }
}

/** What a key does, by its name; true if it did something. */
function onKey(key) {
  const { columns } = layout();
  const page = columns * Math.max(1, Math.floor(grid.clientHeight / layout().height));
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page };
  const methodOfDigit = /^[0-9]$/.test(key) && (key === "0" ? { name: "" } : methods[Number(key) - 1]);
  if (key in steps) moveTo(active + (state.open ? Math.sign(steps[key]) : steps[key]));
  else if (key === "Home") moveTo(0);
  else if (key === "End") moveTo(shown.length - 1);
  else if (key === "Enter" && !state.open) setOpen(true);
  else if (key === "Escape" && state.open) setOpen(false);
  else if (key === " ") mark();
  else if (methodOfDigit) change("method", methodOfDigit.name);
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byName("copy").open) return;
  const onControl = event.target.closest("select, input, textarea, button, summary, a");
  if (onControl && event.key !== "Escape" && !(state.open && /^(Arrow|[0-9])/.test(event.key))) return;
  if (onKey(event.key)) event.preventDefault();
});

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function fillControls() {
  byName("dataset").append(option("", "all"), ...data.collections.map(({ name }) => option(name, name)));
  byName("class").append(option("", "all"), ...classNames.map((name) => option(name, name)));
  byName("method").append(
    ...methods.map(({ name, title }, place) => option(name, place < 9 ? `${place + 1}  ${title}` : title)), option("", "0  image alone"),
  );
  for (const name of ["dataset", "class", "right", "from", "to", "method", "sort"]) {
    byName(name).addEventListener("change", (event) => change(name, event.target.value));
  }
  for (const name of ["mapped", "smallest"]) {
    byName(name).addEventListener("change", (event) => change(name, event.target.checked ? "1" : ""));
  }
  byName("scale").addEventListener("change", (event) => change("scale", event.target.value));
  byName("reset").addEventListener("click", () => {
    for (const name of ["dataset", "class", "right", "from", "to", "mapped"]) state[name] = "";
    refresh();
  });
  byName("unmark").addEventListener("click", () => change("marked", ""));
  byName("copy-names").addEventListener("click", () => copy(selection().map((item) => `${item.file}\n`).join(""), "the file names"));
  byName("copy-csv").addEventListener("click", () => copy(csv(), "a CSV"));
  byName("previous").addEventListener("click", () => moveTo(active - 1));
  byName("next").addEventListener("click", () => moveTo(active + 1));
  byName("open-mark").addEventListener("change", mark);
  byName("open-scale").addEventListener("change", (event) => change("scale", event.target.checked ? "one" : "each"));
  byName("close").addEventListener("click", () => setOpen(false));
  dialog.addEventListener("cancel", () => setOpen(false));
  byName("more").open = window.matchMedia("(min-width: 700px)").matches;
}

rowsElement.addEventListener("click", (event) => {
  const place = event.target.closest(".card")?.dataset.place;
  if (place === undefined) return;
  moveTo(Number(place));
  setOpen(true);
});
grid.addEventListener("scroll", drawRows, { passive: true });
byName("more").addEventListener("toggle", drawRows);
window.addEventListener("resize", () => {
  redrawGrid();
  scrollToActive();
});
window.addEventListener("hashchange", () => refresh(readAddress()));

fillControls();
refresh(readAddress());
grid.focus();
