/** A chart over time, drawn by uPlot in the theme's colours. */
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { language, theme } from '../state/preferences.ts';

interface Props {
  title: string;
  /** Seconds since 1970, then the values of each series. */
  data: uPlot.AlignedData;
  series: { label: string; colour: string }[];
}

const HEIGHT = 180;

export function Chart({ title, data, series }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  // biome-ignore format: one chart as long as its look stays the same
  useEffect(() => {
    const element = place.current as HTMLDivElement;
    const style = getComputedStyle(element);
    const [text, line] = [style.getPropertyValue('--muted'), style.getPropertyValue('--line')];
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const options: uPlot.Options = {
      width: element.clientWidth,
      height: HEIGHT,
      series: [{}, ...series.map(({ label, colour }) => ({ label, stroke: colour, width: 2, spanGaps: false, points: { show: true, size: 5 } }))],
      axes: [axis, axis],
      scales: { y: { range: (_, __, highest) => [0, Math.max(highest * 1.1, 1)] } },
      legend: { live: false },
      cursor: { show: false },
    };
    const drawn = new uPlot(options, data, element);
    plot.current = drawn;
    const size = new ResizeObserver(() => drawn.setSize({ width: element.clientWidth, height: HEIGHT }));
    size.observe(element);
    return () => {
      size.disconnect();
      drawn.destroy();
    };
  }, [theme.value, language.value]);
  useEffect(() => plot.current?.setData(data), [data]);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={place} />
    </figure>
  );
}
