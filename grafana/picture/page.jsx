// The dashboard "Run" drawn from a live Prometheus with Grafana's own UI library: panel frames, time series, big values.
// What the library does not hold (heat maps, XY charts) is left out; variables, transformations and alerts are not exercised.
import 'uplot/dist/uPlot.min.css';
import React, { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createTheme, FieldColorModeId, FieldType, getDisplayProcessor, LoadingState, ThemeContext } from '@grafana/data';
import { BigValue, BigValueColorMode, BigValueGraphMode, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { LegendDisplayMode } from '@grafana/schema';
import dashboard from '../dashboards/run.json';

const theme = createTheme({ colors: { mode: 'dark' } });
const { prometheus, seconds, run, panels, end } = window.PICTURE;
const to = end ?? Date.now() / 1000, from = to - seconds, step = Math.max(1, Math.round(seconds / 300));
const COLUMN = 62, ROW = 38;

const expression = (text) => text
  .replaceAll('$run', run).replaceAll('${run}', run)
  .replaceAll('$__rate_interval', '15s').replaceAll('$__interval', `${step}s`).replaceAll('$__range', `${seconds}s`);

async function ask({ expr, instant }) {
  const at = instant ? `query?time=${to}` : `query_range?start=${from}&end=${to}&step=${step}`;
  const response = await fetch(`${prometheus}/api/v1/${at}&query=${encodeURIComponent(expression(expr))}`);
  return (await response.json()).data.result;
}

const named = (format, metric) =>
  (format ?? '').replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '') || metric.__name__ || 'value';

async function framesOf(panel) {
  const frames = [];
  for (const target of panel.targets ?? []) {
    for (const { metric, values, value } of await ask(target)) {
      const points = values ?? [value];
      const numbers = points.map(([, text]) => Number(text));
      const config = { ...panel.fieldConfig.defaults, displayName: named(target.legendFormat, metric) };
      config.color = { mode: FieldColorModeId.PaletteClassic };
      const state = { seriesIndex: frames.length, displayName: config.displayName };
      const field = { name: 'Value', type: FieldType.number, config, values: numbers, state };
      field.display = getDisplayProcessor({ field, theme });
      const time = { name: 'Time', type: FieldType.time, config: {}, values: points.map(([at]) => 1000 * at) };
      time.display = getDisplayProcessor({ field: time, theme });
      frames.push({ refId: target.refId, length: numbers.length, fields: [time, field] });
    }
  }
  return frames;
}

function Content({ panel, frames, width, height }) {
  const last = frames.map((frame) => frame.fields[1]).at(-1);
  if (!last) return <span>No data</span>;
  if (panel.type === 'stat') {
    const number = last.values.at(-1);
    const shown = panel.options?.textMode === 'name' ? { text: last.state.displayName, numeric: number } : last.display(number);
    return <BigValue value={{ ...shown, title: '' }} width={width} height={height} theme={theme}
      colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} />;
  }
  const legend = { displayMode: LegendDisplayMode.List, placement: 'bottom', showLegend: true, calcs: [] };
  const timeRange = { from: { valueOf: () => 1000 * from }, to: { valueOf: () => 1000 * to }, raw: {} };
  return <TimeSeries frames={frames} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={legend} />;
}

function Panel({ panel }) {
  const [frames, setFrames] = useState(null);
  useEffect(() => { framesOf(panel).then(setFrames); }, []);
  const [width, height] = [panel.gridPos.w * COLUMN - 8, panel.gridPos.h * ROW - 8];
  if (panel.type === 'row') return <h4 style={{ width: '100%', margin: '4px', color: '#ccccdc' }}>{panel.title}</h4>;
  return <PanelChrome title={panel.title} width={width} height={height} padding="md" loadingState={LoadingState.Done}>
    {(innerWidth, innerHeight) => frames
      ? <Content panel={panel} frames={frames} width={innerWidth} height={innerHeight} /> : <span />}
  </PanelChrome>;
}

// In the dashboard's order; a panel keeps its size and moves up beside the one before.
const drawn = dashboard.panels.filter((panel) => panels.includes(panel.title));

createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}><GlobalStyles />
    <div style={{ display: 'flex', flexWrap: 'wrap', gap: 8, width: 24 * COLUMN + 8 }}>
      {drawn.map((panel) => <Panel key={panel.id} panel={panel} />)}
    </div>
  </ThemeContext.Provider>);
