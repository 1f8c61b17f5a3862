"use strict";
const tip = document.getElementById("tip");
const arms = [...document.querySelectorAll("g.arm")];
const number = (element) => [...element.classList].find((name) => /^a\d+$/.test(name));

function light(arm) {
  for (const element of arms) {
    element.classList.toggle("dim", arm !== null && !element.classList.contains(arm));
    element.classList.toggle("lit", arm !== null && element.classList.contains(arm));
  }
  if (arm === null) tip.textContent = "";
}

// [{arm, label, points}] of a chart, read from its paths when it is first looked at
function read(svg) {
  svg.read ??= [...svg.querySelectorAll("g.arm")].map((group) => ({
    group,
    arm: number(group),
    points: group.querySelector(".line").getAttribute("d").slice(1).split("L").map((p) => p.split(" ").map(Number)),
  }));
  return svg.read;
}

function shown(svg, point) {
  const [left, top, width, height] = svg.dataset.box.split(" ").map(Number);
  const [low, high] = [Number(svg.dataset.low), Number(svg.dataset.high)];
  const part = 1 - (point[1] - top) / height;
  const value = svg.dataset.log === "1" ? low * (high / low) ** part : low + (high - low) * part;
  const task = Math.round(1 + (point[0] - left) / width * (svg.dataset.tasks - 1));
  return `${svg.dataset.share === "1" ? (100 * value).toFixed(1) + " %" : value.toPrecision(3)} at task ${task}`;
}

for (const svg of document.querySelectorAll("svg.chart[data-box]")) {
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let best = null, least = 30;
    for (const { group, arm, points } of read(svg)) {
      if (getComputedStyle(group).display === "none") continue;
      const point = points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
      const away = Math.abs(point[1] - y) + Math.max(0, Math.abs(point[0] - x) - 15);
      if (away < least) [best, least] = [{ arm, point }, away];
    }
    light(best && best.arm);
    if (!best) return;
    tip.textContent = `${document.querySelector(`label.${best.arm}`).textContent.trim()}: ${shown(svg, best.point)}`;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  svg.addEventListener("pointerleave", () => light(null));
}
for (const label of document.querySelectorAll(".keys label")) {
  for (const name of ["pointerenter", "focusin"]) label.addEventListener(name, () => light(number(label)));
  for (const name of ["pointerleave", "focusout"]) label.addEventListener(name, () => light(null));
}
for (const button of document.querySelectorAll(".keys button")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const box of document.querySelectorAll(".keys input")) box.checked = button.value === "all";
  });
}
