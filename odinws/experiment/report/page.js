"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const choice = document.getElementById("choice");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
// Told apart also by those who see no red or no green (Okabe and Ito).
const COLOURS = ["#808890", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const CONFIG = { displayModeBar: false, responsive: true };

const colour = (arm) => COLOURS[data.arms.indexOf(arm) % COLOURS.length];
const points = (pairs) => ({ x: pairs.map((pair) => pair[0]), y: pairs.map((pair) => pair[1]) });
const unit = (measure) => (measure.unit ? `${measure.title}, ${measure.unit}` : measure.title);

function layout(title, x, y) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = [style.getPropertyValue("--ink").trim(), style.getPropertyValue("--line").trim()];
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    title: { text: title, font: { size: 14 }, x: 0 },
    font: { color: ink, size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { t: 40, r: 10, b: 45, l: 60 },
    xaxis: { ...axis, title: { text: x } },
    yaxis: { ...axis, title: { text: y }, rangemode: "tozero" },
    legend: { orientation: "h", y: 1.12, x: 1, xanchor: "right" },
    hovermode: "closest",
  };
}

function shifts() {
  const traces = data.arms.slice(1).map((arm) => {
    const rows = data.rows.filter((row) => row.arm === arm);
    return {
      name: arm, type: "scatter", mode: "markers", orientation: "h", marker: { color: colour(arm), size: 8 },
      x: rows.map((row) => row.shift), y: rows.map((row) => row.title),
      error_x: {
        type: "data", symmetric: false, color: colour(arm), thickness: 1.2, width: 3,
        array: rows.map((row) => row.high - row.shift), arrayminus: rows.map((row) => row.shift - row.low),
      },
      hovertemplate: "%{y}: %{x:+.1f} %",
    };
  });
  const drawn = layout("Shift from the baseline, with its interval; what is further out is cut off", "%", "");
  drawn.xaxis.range = [-100, 150];
  drawn.yaxis.autorange = "reversed";
  drawn.height = 560;
  drawn.scattermode = "group"; // the arms beside each other
  return Plotly.react("shifts", traces, drawn, CONFIG);
}

function byRound(measure) {
  const traces = data.arms.map((arm) => ({
    name: arm, ...points(data.trials[measure.name][arm] ?? []),
    mode: "lines+markers", line: { color: colour(arm), width: 1 }, marker: { size: 7 },
  }));
  const drawn = layout("Round by round", "round", unit(measure));
  drawn.xaxis.dtick = 1;
  return Plotly.react("by-round", traces, drawn, CONFIG);
}

function overTime(measure) {
  const traces = data.arms.flatMap((arm) =>
    (data.seconds[measure.name][arm] ?? []).map(([round, seconds, values], index) => ({
      name: arm, legendgroup: arm, showlegend: index === 0, x: seconds, y: values,
      mode: "lines", line: { color: colour(arm), width: 1.2 }, opacity: 0.75,
      hovertemplate: `round ${round}, second %{x}: %{y}`,
    })));
  const drawn = layout("Second by second, one line per trial; shaded: warming up", "second", unit(measure));
  const first = Math.min(0, ...traces.flatMap((trace) => trace.x.slice(0, 1)));
  drawn.shapes = first < 0
    ? [{ type: "rect", x0: first, x1: 0, y0: 0, y1: 1, yref: "paper", fillcolor: "rgba(128,136,144,0.15)", line: { width: 0 } }]
    : [];
  return Plotly.react("over-time", traces, drawn, CONFIG);
}

function distribution(measure) {
  const histogram = data.histograms[measure.histogram];
  if (measure.unit === "ms" && histogram) {
    const traces = data.arms.filter((arm) => histogram[arm]).map((arm) => ({
      name: arm, x: histogram[arm].bounds, y: histogram[arm].shares.map((share) => 100 * share),
      mode: "lines", line: { color: colour(arm), shape: "hv" },
    }));
    const drawn = layout(`All samples of ${measure.histogram}, all rounds`, "ms", "% at most so long");
    drawn.xaxis.type = "log";
    return Plotly.react("distribution", traces, drawn, CONFIG);
  }
  const traces = data.arms.map((arm) => {
    const measured = (data.seconds[measure.name][arm] ?? [])
      .flatMap(([, seconds, values]) => values.filter((_, index) => seconds[index] >= 0));
    return {
      name: arm, type: "box", y: measured.length ? measured : points(data.trials[measure.name][arm] ?? []).y, boxpoints: "all", jitter: 0.5,
      pointpos: 0, marker: { color: colour(arm), size: 3 }, line: { width: 1.2 },
    };
  });
  const drawn = layout("All seconds, all rounds; all trials where there are no seconds", "", unit(measure));
  return Plotly.react("distribution", traces, drawn, CONFIG);
}

async function draw() {
  const measure = data.measures.find((each) => each.name === choice.value);
  if (measure === undefined) return;
  await Promise.all([shifts(), byRound(measure), overTime(measure), distribution(measure)]);
  document.body.dataset.drawn = measure.name;
}

for (const measure of data.measures) choice.add(new Option(unit(measure), measure.name));
choice.addEventListener("change", draw);
dark.addEventListener("change", draw);
draw();
