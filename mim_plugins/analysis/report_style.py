"""Style sheet and script of a report; neither loads anything."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1b1d21; --soft: #50555e;
  --grid: #d9dce1; --card: #f4f5f7; --focus: #0b57d0;
  --c0: #0b57d0; --c1: #b3261e; --c2: #146c2e; --c3: #7b3fb5; --c4: #8a5100;
  --c5: #00696e; }
@media (prefers-color-scheme: dark) { :root { --page: #16181c; --text: #e9eaed;
  --soft: #b4b9c2; --grid: #3a3f47; --card: #22252b; --focus: #8ab4f8;
  --c0: #8ab4f8; --c1: #f2a19b; --c2: #7fd394; --c3: #d0a5ff; --c4: #f0b65c;
  --c5: #6fd6dc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.35rem; margin-top: 2.5rem; }
h3 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0;
  list-style: none; }
a { color: var(--focus); }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .5rem;
  min-width: 0; }
figcaption { font-weight: 600; }
svg, img { max-width: 100%; height: auto; }
figure > svg { width: 100%; } figure > svg.map { max-width: 26rem; }
svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
.grid { stroke: var(--grid); } .line { fill: none; stroke-width: 2; }
.cell { fill: var(--c0); stroke: var(--grid); stroke-width: .5; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.dot { fill: var(--card); stroke-width: 2; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 2 3; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .5rem 0; padding: 0;
  list-style: none; }
.missing { border-left: .25rem solid var(--c4); padding: .25rem .75rem;
  color: var(--soft); }
.wide, pre { overflow-x: auto; max-height: 30rem; }
pre { background: var(--card); padding: .75rem; border-radius: .5rem;
  white-space: pre-wrap; }
table { border-collapse: collapse; } th, td { padding: .15rem .6rem;
  text-align: left; border-bottom: 1px solid var(--grid); }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; }
summary { cursor: pointer; padding: .35rem 0; }
input[type=range] { width: 100%; min-height: 2.5rem; accent-color: var(--focus); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.step img { width: 100%; image-rendering: pixelated; }
"""

# Without it, all pictures are shown one below the other.
SCRIPT = """
for (const box of document.querySelectorAll('.steps')) {
  const slider = box.querySelector('input'), output = box.querySelector('output');
  const steps = [...box.querySelectorAll('.step')];
  const show = () => {
    steps.forEach((step, index) => { step.hidden = index !== +slider.value; });
    output.textContent = steps[+slider.value].dataset.step;
    slider.setAttribute('aria-valuetext', output.textContent);
  };
  slider.addEventListener('input', show);
  show();
}
"""
