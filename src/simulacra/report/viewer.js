// Samples as models that can be turned. The library lies in the page as gzip in base64; it is inflated when the models come near the
// screen. Where a browser cannot (no WebGL, no DecompressionStream), nothing happens and the pictures stay.
"use strict";
(() => {
  const stages = [...document.querySelectorAll(".models")];
  const packed = document.getElementById("viewer-library");

  const able = () => {
    const context = document.createElement("canvas").getContext("webgl2") || document.createElement("canvas").getContext("webgl");
    return Boolean(context) && "DecompressionStream" in window && "IntersectionObserver" in window;
  };

  const library = async () => {
    const bytes = Uint8Array.from(atob(packed.content.textContent.trim()), (c) => c.charCodeAt(0));
    const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(inflated).text();
    document.head.append(script);
    return window.$3Dmol;
  };

  const fill = (lib, stage) => {
    const cells = [...stage.querySelectorAll("[data-model]")];
    const columns = Number(stage.dataset.columns);
    const rows = Math.ceil(cells.length / columns);
    const canvas = stage.querySelector(".canvas");
    const look = { backgroundAlpha: 0, antialias: true, disableFog: true };
    const grid = lib.createViewerGrid(canvas, { rows, cols: columns }, look);
    const viewers = cells.map((cell, i) => {
      const viewer = grid[Math.floor(i / columns)][i % columns];
      viewer.addModel(cell.dataset.model, cell.dataset.format);
      viewer.setStyle({}, { stick: { radius: 0.12, doubleBondScaling: 0.55, tripleBondScaling: 0.4, colorscheme: "Jmol" }, sphere: { scale: 0.24, colorscheme: "Jmol" } });
      viewer.zoomTo();
      viewer.zoom(1.1);
      return viewer;
    });
    grid.flat().forEach((viewer) => viewer.render());
    // A wheel over the models scrolls the page; with Ctrl it zooms, as in maps.
    stage.addEventListener("wheel", (event) => event.ctrlKey || event.stopPropagation(), { capture: true, passive: true });
    const button = stage.querySelector("button");
    button.addEventListener("click", () => {
      const turning = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(turning));
      viewers.forEach((viewer) => viewer.spin(turning ? "y" : false, 0.6));
    });
  };

  const begin = async () => {
    const shown = document.documentElement.classList;
    try {
      const lib = await library();
      shown.add("with-models"); // first, so that the stages have a size
      stages.forEach((stage) => fill(lib, stage));
    } catch (error) {
      shown.remove("with-models");
      console.warn("the models cannot be shown; the pictures stay", error);
    }
  };

  if (!stages.length || !packed || !able()) return;
  const near = new IntersectionObserver((seen) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    begin();
  }, { rootMargin: "600px" });
  near.observe(document.getElementById("samples"));
})();
