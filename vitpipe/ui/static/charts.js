"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

function draw() {
  const style = getComputedStyle(document.documentElement), line = style.getPropertyValue("--grid").trim();
  const axis = () => ({ gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true }); // a new object each time: Plotly changes it
  figures.forEach((figure, place) => {
    const box = document.getElementById(`chart-${place}`);
    if (!box) return; // the page shows a sentence in place of an empty chart
    const layout = {
      height: 320, margin: { l: 50, r: 10, t: 10, b: 40 }, font: { color: style.color },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: true,
      legend: { orientation: "h", y: 1.2 }, xaxis: axis(), yaxis: { ...axis(), ...figure.layout.yaxis },
    };
    Plotly.react(box, figure.data, layout, { displayModeBar: false, responsive: true });
    if (!box.dataset.links) {
      box.dataset.links = "yes";
      box.on("plotly_click", (event) => { location.href = event.points[0].customdata; });
    }
  });
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
