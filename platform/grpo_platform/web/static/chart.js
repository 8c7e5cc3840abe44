// A chart of curves over timesteps, with bands, lines for what they are measured by, and its table.
import uPlot from './vendor/uplot.js';
import { html, number, t, useEffect, useMemo, useRef, useState } from './lib.js';

const ROWS = 24;
const COLOURS = 8;

export const colour = (place) => `--series-${(place % COLOURS) + 1}`;

// `series`: {label, colour, x, y, low, high, thin}; `lines`: {label, y}; all x in timesteps.
export function Chart({ title, series, lines = [], height = 260, xLabel = t('chart.steps') }) {
  const place = useRef();
  const chart = useRef(null);
  const [at, setAt] = useState(null);
  const shown = useMemo(() => lay(series, lines), [series, lines]);
  const form = JSON.stringify([series.map((s) => [s.label, s.colour, !!s.low, s.y.length < 2]), lines.map((l) => l.label)]);
  const theme = useTheme();
  useEffect(() => {
    const width = Math.max(200, place.current.clientWidth);
    chart.current = new uPlot(options(series, lines, width, height, setAt), shown, place.current);
    const watch = new ResizeObserver(() => {
      chart.current.setSize({ width: Math.max(200, place.current.clientWidth), height });
    });
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      chart.current.destroy();
    };
  }, [form, theme, height]);
  useEffect(() => chart.current.setData(shown), [shown]);
  const value = (row) => (at === null ? null : shown[row][at]);
  const places = series.map((_, i) => 1 + 3 * i);
  return html`<figure class="chart"><figcaption>${title && html`<h2>${title}</h2>`}
      <ul class="legend">${series.map((s, i) => html`<li><${Swatch} colour=${s.colour} />${s.label}
          ${value(places[i]) !== null && value(places[i]) !== undefined && html`<span class="muted">${number(value(places[i]))}</span>`}</li>`)}
        ${lines.map((line) => html`<li><${Swatch} dashed />${line.label} <span class="muted">${number(line.y)}</span></li>`)}
        ${at !== null && html`<li class="muted">${xLabel} ${number(shown[0][at])}</li>`}</ul></figcaption>
    ${shown[0].length === 0 && html`<p class="muted">${t('chart.empty')}</p>`}
    <div ref=${place} class=${`plot ${shown[0].length === 0 ? 'hidden' : ''}`} role="img" aria-label=${describe(title, series, lines)}></div>
    <details><summary>${t('chart.table')}</summary><div class="scroll" tabindex="0"><${Table} shown=${shown} series=${series} places=${places} xLabel=${xLabel} /></div></details>
  </figure>`;
}

function Swatch({ colour: name, dashed }) {
  const style = name ? { color: `var(${name})` } : {};
  return html`<svg class="swatch" style=${style} viewBox="0 0 16 8" width="16" height="8" aria-hidden="true">
    <path d="M0 4h16" stroke="currentColor" stroke-width="2" stroke-dasharray=${dashed ? '4 3' : null} /></svg>`;
}

function describe(title, series, lines) {
  const parts = series.map((s) => {
    const last = s.y.findLast((value) => value !== null && value !== undefined);
    return `${s.label}: ${last === undefined ? '–' : number(last)}`;
  });
  return [title, ...parts, ...lines.map((line) => `${line.label}: ${number(line.y)}`)].filter(Boolean).join('; ');
}

// All curves over the union of their steps: x, then for each its values, low and high, then the lines.
function lay(series, lines) {
  const tables = series.map((s) => [s.x, s.y, s.low || s.x.map(() => null), s.high || s.x.map(() => null)]);
  const joined = tables.length ? uPlot.join(tables.map((table) => table.slice())) : [[]];
  const x = joined[0];
  return [...joined, ...lines.map((line) => x.map(() => line.y))];
}

function useTheme() {
  const [count, setCount] = useState(0);
  useEffect(() => {
    const change = () => setCount((n) => n + 1);
    const system = matchMedia('(prefers-color-scheme: dark)');
    document.addEventListener('themechange', change);
    system.addEventListener('change', change);
    return () => {
      document.removeEventListener('themechange', change);
      system.removeEventListener('change', change);
    };
  }, []);
  return count;
}

// What a colour of the style sheet is now; canvases take no variables.
function resolved(name) {
  const probe = document.body.appendChild(document.createElement('i'));
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const faint = (text) => text.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.16)');

function options(series, lines, width, height, onMove) {
  const [text, line] = [resolved('--muted'), resolved('--line')];
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  const compact = (value) => (Math.abs(value) >= 10000 ? Intl.NumberFormat(undefined, { notation: 'compact' }).format(value) : number(value));
  const curves = series.flatMap((s) => {
    const stroke = resolved(s.colour);
    const quiet = { stroke: 'transparent', width: 0, points: { show: false }, spanGaps: true };
    const alone = s.y.length < 2;
    return [{ label: s.label, stroke, width: s.thin ? 1 : 1.75, alpha: s.thin ? 0.6 : 1, spanGaps: true, points: { show: alone, size: 6, fill: stroke } }, quiet, quiet];
  });
  const bands = series.map((s, i) => ({ series: [3 + 3 * i, 2 + 3 * i], fill: faint(resolved(s.colour)) }));
  return {
    width, height, bands,
    padding: [12, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false }, points: { size: 6 } },
    scales: { x: { time: false } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map(compact), space: 70, size: 30 },
      { ...axis, values: (_, ticks) => ticks.map(compact), size: 52 }],
    series: [{}, ...curves, ...lines.map((one) => ({ label: one.label, stroke: text, width: 1, dash: [5, 4], points: { show: false } }))],
    hooks: { setCursor: [(plot) => onMove(plot.cursor.idx ?? null)] },
  };
}

function Table({ shown, series, places, xLabel }) {
  const count = shown[0].length;
  const rows = [...Array(Math.min(count, ROWS)).keys()].map((i) => Math.round((i * (count - 1)) / Math.max(1, Math.min(count, ROWS) - 1)));
  const cell = (i, row) => {
    const [value, low, high] = [shown[places[i]][row], shown[places[i] + 1][row], shown[places[i] + 2][row]];
    const interval = low !== null && low !== undefined && high !== null && high !== undefined;
    return value === null || value === undefined ? '' : `${number(value)}${interval ? ` [${number(low)}, ${number(high)}]` : ''}`;
  };
  return html`<table><thead><tr><th scope="col" class="number">${xLabel}</th>${series.map((s) => html`<th scope="col" class="number">${s.label}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr><th scope="row" class="number">${number(shown[0][row])}</th>
      ${series.map((_, i) => html`<td class="number">${cell(i, row)}</td>`)}</tr>`)}</tbody></table>`;
}
