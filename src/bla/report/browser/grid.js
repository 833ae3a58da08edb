"use strict";
// The grid holds elements only for the rows that are seen, so that thousands of images cost as much as a dozen.

const grid = document.getElementById("grid");
const rowsElement = document.getElementById("rows");
const LEAST_WIDTH = 150; // CSS pixels of a card
const CAPTION = 58; // three lines of text, and the space around a card
const shownRows = new Map(); // row number to its element

let shown = []; // the items that pass the filters, in order
let active = 0; // place in `shown` of the image that keys act on

function layout() {
  const columns = Math.max(2, Math.floor(grid.clientWidth / LEAST_WIDTH));
  const side = Math.floor(grid.clientWidth / columns);
  return { columns, side, height: side + CAPTION };
}

/** Removes all rows and draws those that are seen. */
function redrawGrid() {
  shownRows.forEach((element) => element.remove());
  shownRows.clear();
  drawRows();
}

/** Makes the rows that came into view, and removes those that left it. */
function drawRows() {
  const { columns, side, height } = layout();
  const count = Math.ceil(shown.length / columns);
  rowsElement.style.height = `${count * height}px`;
  grid.setAttribute("aria-rowcount", count);
  grid.setAttribute("aria-colcount", columns);
  const first = Math.max(0, Math.floor(grid.scrollTop / height) - 1);
  const last = Math.min(count - 1, Math.floor((grid.scrollTop + grid.clientHeight) / height) + 1);
  for (const [row, element] of shownRows) {
    if (row < first || row > last) {
      element.remove();
      shownRows.delete(row);
    }
  }
  for (let row = first; row <= last; row += 1) {
    if (!shownRows.has(row)) {
      const element = rowElement(row, columns, side, height);
      shownRows.set(row, element);
      const after = [...shownRows.keys()].filter((other) => other > row).sort((a, b) => a - b)[0];
      rowsElement.insertBefore(element, after === undefined ? null : shownRows.get(after)); // in order, for screen readers
    }
  }
  showActive();
}

function rowElement(row, columns, side, height) {
  const element = document.createElement("div");
  element.className = "row";
  element.setAttribute("role", "row");
  element.setAttribute("aria-rowindex", row + 1);
  element.style.top = `${row * height}px`;
  element.style.height = `${height}px`;
  shown.slice(row * columns, (row + 1) * columns).forEach((item, column) => {
    element.append(card(item, row * columns + column, column, side));
  });
  return element;
}

function card(item, place, column, side) {
  const element = document.createElement("div");
  element.className = "card";
  element.id = `image-${item.index}`;
  element.style.width = `${side}px`;
  element.setAttribute("role", "gridcell");
  element.setAttribute("aria-colindex", column + 1);
  element.dataset.place = place;
  const marked = markedIds().has(item.id);
  element.classList.toggle("marked", marked);
  element.setAttribute("aria-label", inWords(item, state.method) + (marked ? ", marked" : ""));
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  const map = mapOf(item, state.method);
  draw(canvas, item, map, state.scale, side - 12);
  const box = document.createElement("div");
  box.className = "picture";
  box.style.height = `${side - 12}px`;
  box.append(canvas);
  if (state.method && !map) {
    box.classList.add("blank");
    box.append(line("not computed", "absent"));
  }
  element.append(box, ...captionLines(item));
  return element;
}

function captionLines(item) {
  const facts = factsOf(item, state.method);
  const value = state.sort && facts[state.sort];
  const sorted = state.sort ? `${state.sort} ${number(value, state.sort)}` : item.file;
  return [
    line(predictionText(facts), facts.right === null ? "" : facts.right ? "right" : "wrong"),
    line(facts.right === false ? `true: ${truth(item)}` : item.collection.name),
    line(sorted),
  ];
}

function line(text, kind = "") {
  const element = document.createElement("div");
  element.className = `line-of-card ${kind}`;
  element.textContent = text;
  element.title = text;
  return element;
}

/** The predicted class with a sign, which does not depend on colours: ✓ right, ✗ wrong. */
function predictionText(facts) {
  if (facts.predicted === null) return "no prediction";
  const sign = facts.right === null ? "" : facts.right ? "✓ " : "✗ ";
  return `${sign}${Math.round(100 * facts.probability)} % ${facts.predicted}`;
}

/** A number as a text; – where there is none. */
function number(value, kind) {
  if (Number.isNaN(value)) return "–";
  return kind === "size" ? String(value) : value.toFixed(3);
}

/** All that a card shows, in words. */
function inWords(item, name) {
  const facts = factsOf(item, name);
  const method = methods.find((other) => other.name === name);
  const right = facts.right === null ? "" : facts.right ? ", right" : ", wrong";
  const prediction = facts.predicted === null ? "no prediction" : `predicted ${facts.predicted}, ${Math.round(100 * facts.probability)} %${right}`;
  const size = Number.isNaN(facts.size) ? "" : `, keeps ${facts.size} ${facts.size === 1 ? "cell" : "cells"}`;
  const map = method ? `. ${method.title}: ${mapInWords(mapOf(item, name))}${size}` : "";
  return `${item.file}, ${item.collection.name}, true class ${truth(item)}, ${prediction}${map}`;
}

/** Marks the active card, which the grid names for screen readers. */
function showActive() {
  rowsElement.querySelectorAll(".active").forEach((element) => element.classList.remove("active"));
  const element = shown.length ? document.getElementById(`image-${shown[active].index}`) : null;
  if (element) {
    element.classList.add("active");
    grid.setAttribute("aria-activedescendant", element.id);
  } else {
    grid.removeAttribute("aria-activedescendant");
  }
}

/** Scrolls so that the active card is seen. */
function scrollToActive() {
  const { columns, height } = layout();
  const top = Math.floor(active / columns) * height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + height - grid.clientHeight;
  drawRows();
}
