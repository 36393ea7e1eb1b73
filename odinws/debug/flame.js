"use strict";
// A flame graph: the wider, the more CPU time; callers above, who they call below.
const ROW = 18;
const root = JSON.parse(document.getElementById("data").textContent);
const graph = document.getElementById("graph");
const said = document.getElementById("said");
const search = document.getElementById("search");
let shown = root;

const seconds = (value) => (value >= 1 ? `${value.toFixed(2)} s` : `${(value * 1000).toFixed(1)} ms`);
const share = (value) => `${((100 * value) / (root.v || 1)).toFixed(1)} %`;

function hue(name) {
  let hash = 0;
  for (const letter of name.replace(/:\d+\)$/, "")) hash = (hash * 31 + letter.codePointAt(0)) % 997;
  return 10 + (hash % 45);
}

function path(node, target) {
  if (node === target) return [node];
  for (const child of node.c) {
    const found = path(child, target);
    if (found.length) return [node, ...found];
  }
  return [];
}

function box(node, left, width, depth, wanted) {
  const element = document.createElement("button");
  const text = `${node.n}: ${seconds(node.v)}, ${share(node.v)}`;
  element.textContent = node.n;
  element.title = text;
  element.setAttribute("aria-label", text);
  element.style.left = `${left}%`;
  element.style.width = `${width}%`;
  element.style.top = `${depth * ROW}px`;
  element.style.setProperty("--hue", hue(node.n));
  if (wanted && node.n.toLowerCase().includes(wanted)) element.className = "found";
  element.addEventListener("click", () => show(node === shown ? root : node));
  element.addEventListener("focus", () => { said.textContent = text; });
  element.addEventListener("mouseenter", () => { said.textContent = text; });
  graph.append(element);
}

function matched(node, wanted) {
  return node.n.toLowerCase().includes(wanted) ? node.v : node.c.reduce((sum, child) => sum + matched(child, wanted), 0);
}

function show(node) {
  shown = node;
  graph.replaceChildren();
  const wanted = search.value.trim().toLowerCase();
  const callers = path(root, node);
  let deepest = callers.length;
  callers.forEach((caller, depth) => box(caller, 0, 100, depth, wanted));
  const draw = (parent, left, scale, depth) => {
    for (const child of parent.c) {
      const width = child.v * scale;
      if (width > 0.08) {
        deepest = Math.max(deepest, depth + 1);
        box(child, left, width, depth, wanted);
        draw(child, left, scale, depth + 1);
      }
      left += width;
    }
  };
  draw(node, 0, 100 / (node.v || 1), callers.length);
  graph.style.height = `${deepest * ROW}px`;
  said.textContent = wanted
    ? `${share(matched(root, wanted))} of the CPU time is in what matches`
    : `${node.n}: ${seconds(node.v)}, ${share(node.v)}`;
}

search.addEventListener("input", () => show(shown));
addEventListener("keydown", (event) => {
  if (event.key === "Escape") { search.value = ""; show(root); }
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
});
show(root);
