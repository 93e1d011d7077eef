#include "reports/page.hpp"

namespace stagecraft {

std::string_view page_style() {
  return R"(:root{color-scheme:light dark;--page:#fff;--ground:#f4f6f9;--ink:#1d2530;--soft:#5b6675;--line:#dfe4ea;--accent:#2f6fb5;--good:#17753c;--fair:#8a5a00;--poor:#b42318;--warn:#fff6e0;--warnline:#e9c46a}
@media(prefers-color-scheme:dark){:root{--page:#161b22;--ground:#0d1117;--ink:#e6eaf0;--soft:#9aa6b6;--line:#2b333e;--accent:#6aa9e0;--good:#56c288;--fair:#e3b341;--poor:#ff7b72;--warn:#2a2312;--warnline:#7d6220}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1280px;margin:0 auto;padding:28px 20px 48px}
header{margin-bottom:20px}
h1{font-size:26px;line-height:1.25;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 4px}
h3{font-size:13px;font-weight:600;margin:18px 0 6px}
p{margin:0 0 12px}
.eyebrow{font-size:12px;font-weight:600;letter-spacing:.08em;text-transform:uppercase;color:var(--accent);margin:0 0 6px}
.note{color:var(--soft);font-size:13px}
section,.tile{background:var(--page);border:1px solid var(--line);border-radius:10px}
section{padding:20px 22px;margin-top:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px}
.tile{padding:14px 16px}
.tile b{display:block;font-size:25px;line-height:1.25;font-weight:650;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--soft);font-size:13px}
.warn{background:var(--warn);border-color:var(--warnline)}
.warn ul{margin:6px 0 0;padding-left:20px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 20px;margin:10px 0 0;font-size:14px}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft);font-size:12.5px}
th:first-child,td:first-child{text-align:left;padding-left:0}
tr>*:last-child{padding-right:0}
tbody tr:last-child>*{border-bottom:0}
tr.group>*{border-top:2px solid var(--line)}
td.err{padding-left:0;font-size:13px;min-width:5.4em}
td.l,th.l{text-align:left}
td.truth,th.truth{font-weight:600;color:var(--ink)}
.table-note{margin:12px 0 0}
.minor{color:var(--soft)}.good{color:var(--good)}.fair{color:var(--fair)}.poor{color:var(--poor);font-weight:600}
.swatch{display:inline-block;width:11px;height:11px;margin-right:8px;vertical-align:-1px}
.bars{min-width:220px;width:34%}
.bar{display:block;height:8px;margin:2px 0;min-width:1px}
.bar.p{opacity:.5}
.track{background:var(--idle)}
.bar .bar{margin:0;height:100%}
svg{display:block;width:100%;height:auto}
.wide{min-width:760px}
.pic .raw{fill:none;stroke:var(--f);stroke-width:1;opacity:.55}
.pic .mean{fill:none;stroke:var(--accent);stroke-width:2.2;stroke-linejoin:round}
.tools{display:flex;gap:6px;align-items:center;flex-wrap:wrap;margin:10px 0 0}
.tools button{font:inherit;font-size:13px;color:var(--ink);background:var(--ground);border:1px solid var(--line);border-radius:6px;padding:3px 11px;cursor:pointer}
.tools button:hover,.tools button:focus-visible{border-color:var(--accent);outline:none}
.tl{touch-action:pan-y;cursor:grab;outline-offset:3px}
.tl.drag{cursor:grabbing}
.pic .boxes rect.same{stroke:var(--ink);stroke-width:2}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--page);font-size:12.5px;line-height:1.45;padding:7px 10px;border-radius:6px;max-width:420px;font-variant-numeric:tabular-nums;white-space:pre-line}
footer{color:var(--soft);font-size:12.5px;margin-top:18px}
@media(max-width:640px){main{padding:18px 12px}section{padding:16px 14px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:6px}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}.tools{display:none}}
)";
}

std::string_view page_script() {
  return R"JS((() => {
  'use strict';
  const SVG = document.documentElement.querySelector('svg.tl')?.namespaceURI;
  if (!SVG) return;
  const make = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // One panel a trace. Box positions are pixels of the unzoomed plot; the view shows [from, from + width / zoom).
  const panels = [...document.querySelectorAll('svg.tl')].map(svg => {
    const plot = svg.querySelector('.plot');
    const panel = {svg, name: svg.dataset.name, end: +svg.dataset.end, left: plot.x.baseVal.value,
                   width: plot.width.baseVal.value, group: plot.querySelector('.boxes'),
                   labels: plot.querySelector('.labels'), axis: svg.querySelector('.axis'), byName: new Map()};
    panel.boxes = [...panel.group.children].map(rect => {
      const title = rect.querySelector('title');
      const text = title.textContent;
      title.remove();  // our tip replaces the browser's
      const colon = text.indexOf(': ');
      const box = {rect, name: text.slice(0, colon), text: text.slice(colon + 2), x: rect.x.baseVal.value,
                   w: rect.width.baseVal.value, y: rect.y.baseVal.value, h: rect.height.baseVal.value};
      box.number = /^\d+[FBIW](\d+)$/.exec(box.name)?.[1];
      rect.box = box;
      if (!panel.byName.has(box.name)) panel.byName.set(box.name, []);
      panel.byName.get(box.name).push(box);
      return box;
    });
    const line = panel.axis.querySelector('line'), tick = panel.axis.querySelector('text');
    panel.tick = {y1: line.getAttribute('y1'), y2: line.getAttribute('y2'), y: tick.getAttribute('y')};
    return panel;
  });

  const view = {zoom: 1, from: 0};  // `from` as a share of the whole, so that panels agree
  const nice = range => {
    const rough = range / 10, power = 10 ** Math.floor(Math.log10(rough)), lead = rough / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
  };
  const drawAxis = panel => {
    const seconds = panel.end / view.zoom, start = view.from * panel.end, step = nice(seconds);
    const [unit, name] = start + seconds >= 1 && step >= 1e-3 ? [1, 's'] : step >= 1e-5 ? [1e-3, 'ms'] :
                         step >= 1e-8 ? [1e-6, 'us'] : [1e-9, 'ns'];
    const ticks = [];
    for (let i = Math.ceil(start / step - 1e-9); i * step <= start + seconds * (1 + 1e-9); ++i) {
      const x = panel.left + (i * step - start) / seconds * panel.width;
      ticks.push(make('line', {x1: x, x2: x, y1: panel.tick.y1, y2: panel.tick.y2}),
                 make('text', {x, y: panel.tick.y}, Number((i * step / unit).toPrecision(12)) + ' ' + name));
    }
    panel.axis.replaceChildren(...ticks);
  };
  const drawLabels = panel => {
    const offset = view.from * panel.width, labels = [];
    for (const box of panel.boxes) {
      if (box.number === undefined || box.h < 9 || labels.length > 3000) continue;
      let x = (box.x - offset) * view.zoom, right = x + box.w * view.zoom;
      if (right < 0 || x > panel.width) continue;
      x = Math.max(x, 0);
      right = Math.min(right, panel.width);
      if (right - x < 6.6 * box.number.length + 3) continue;
      labels.push(make('text', {x: (x + right) / 2, y: box.y + box.h / 2 + 4}, box.number));
    }
    panel.labels.replaceChildren(...labels);
  };
  let pending = false;
  const draw = () => {
    pending = false;
    for (const panel of panels) {
      panel.group.setAttribute('transform', `scale(${view.zoom} 1) translate(${-view.from * panel.width} 0)`);
      drawAxis(panel);
      drawLabels(panel);
    }
  };
  const show = (zoom, from) => {
    view.zoom = Math.min(Math.max(zoom, 1), 1e5);
    view.from = Math.min(Math.max(from, 0), 1 - 1 / view.zoom);
    if (!pending) pending = true, requestAnimationFrame(draw);
  };
  // Keeps the point at share `at` of the visible range where it is.
  const zoomBy = (factor, at) => {
    const fixed = view.from + at / view.zoom, zoom = Math.min(Math.max(view.zoom * factor, 1), 1e5);
    show(zoom, fixed - at / zoom);
  };

  const tools = document.getElementById('tools');
  const button = (text, label, action) => {
    const element = document.createElement('button');
    element.type = 'button';
    element.textContent = text;
    element.setAttribute('aria-label', label);
    element.addEventListener('click', action);
    tools.append(element);
  };
  button('+', 'zoom in', () => zoomBy(2, .5));
  button('\u2212', 'zoom out', () => zoomBy(.5, .5));
  button('\u2190', 'earlier', () => show(view.zoom, view.from - .25 / view.zoom));
  button('\u2192', 'later', () => show(view.zoom, view.from + .25 / view.zoom));
  button('Whole step', 'show the whole step', () => show(1, 0));
  const hint = document.createElement('span');
  hint.className = 'note';
  hint.textContent = 'Ctrl + wheel or double click zooms, dragging moves, pointing compares an action in all traces.';
  tools.append(hint);

  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.hidden = true;
  document.body.append(tip);
  let marked = [];
  const unmark = () => {
    for (const rect of marked) rect.classList.remove('same');
    marked = [];
    tip.hidden = true;
  };
  const mark = (box, event) => {
    unmark();
    const lines = [box.name];
    for (const panel of panels) {
      const same = panel.byName.get(box.name);
      if (!same) continue;
      const twin = same.find(other => other === box) ?? same.find(other => other.y === box.y) ?? same[0];
      marked.push(twin.rect);
      twin.rect.classList.add('same');
      lines.push(`${panel.name}: ${twin.text}`);
    }
    tip.textContent = lines.join('\n');
    tip.hidden = false;
    const {offsetWidth: w, offsetHeight: h} = tip;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 6)) + 'px';
    tip.style.top = (event.clientY + 18 + h > innerHeight ? event.clientY - h - 10 : event.clientY + 18) + 'px';
  };

  for (const panel of panels) {
    const {svg} = panel;
    const shareAt = event => {
      const bounds = svg.getBoundingClientRect();
      const x = (event.clientX - bounds.left) * svg.viewBox.baseVal.width / bounds.width;
      return Math.min(Math.max((x - panel.left) / panel.width, 0), 1);
    };
    svg.tabIndex = 0;
    svg.addEventListener('wheel', event => {
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (!event.ctrlKey && !event.metaKey && !(sideways && view.zoom > 1)) return;
      event.preventDefault();
      if (sideways) show(view.zoom, view.from + event.deltaX / panel.width / view.zoom);
      else zoomBy(Math.exp(-event.deltaY * .004), shareAt(event));
    }, {passive: false});
    svg.addEventListener('dblclick', event => zoomBy(event.shiftKey ? 1 / 3 : 3, shareAt(event)));
    let drag = null;
    svg.addEventListener('pointerdown', event => {
      if (event.button !== 0 || view.zoom === 1) return;
      drag = {at: shareAt(event), from: view.from};
      svg.setPointerCapture(event.pointerId);
      svg.classList.add('drag');
      unmark();
    });
    svg.addEventListener('pointermove', event => {
      if (drag) return show(view.zoom, drag.from - (shareAt(event) - drag.at) / view.zoom);
      const box = event.target.box;
      if (box) mark(box, event);
      else unmark();
    });
    const stop = () => { drag = null; svg.classList.remove('drag'); };
    svg.addEventListener('pointerup', stop);
    svg.addEventListener('pointercancel', stop);
    svg.addEventListener('pointerleave', unmark);
    svg.addEventListener('keydown', event => {
      const move = {ArrowLeft: -.1, ArrowRight: .1}[event.key];
      if (move) show(view.zoom, view.from + move / view.zoom);
      else if (event.key === '+' || event.key === '=') zoomBy(1.5, .5);
      else if (event.key === '-') zoomBy(1 / 1.5, .5);
      else if (event.key === '0' || event.key === 'Escape') show(1, 0);
      else return;
      event.preventDefault();
    });
  }
})();
)JS";
}

}  // namespace stagecraft
