/** How the service is: who reads, what waits, how fast, what failed, and what was delivered. */
import { useComputed, useSignal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { api, data, fetchFrom, type Schemas } from '../api/client.ts';
import { Problem } from '../api/problem.ts';
import { ErrorLine } from '../parts/error-line.tsx';
import { moment } from '../parts/text.ts';
import { linkTo, open } from '../route.ts';
import { checks } from '../state/server.ts';
import { isOpen, newestFirst } from '../state/worklist.ts';
import { words } from '../words/words.ts';
import { Chart } from './chart.tsx';
import { failuresOf, latencies, minutesOf } from './figures.ts';
import { type Sample, samplesOf } from './prometheus.ts';

const MINUTES = 60;
const POLL_MS = 5_000;

type Agreement = Schemas['FeedbackAgreement'];
type Delivery = Schemas['DeliveryLine'];

export default function Operations() {
  const text = words.value.ops;
  const metrics = useSignal<Map<string, Sample[]>>(new Map());
  const agreement = useSignal<Agreement | null>(null);
  const deliveries = useSignal<readonly Delivery[]>([]);
  const problem = useSignal<string | null>(null);

  const load = async () => {
    try {
      metrics.value = samplesOf(await (await fetchFrom('metrics')).text());
      agreement.value = await data<Agreement>(api.GET('/v1/feedback/agreement'));
      const list = await data<Schemas['DeliveryList']>(api.GET('/v1/webhooks/deliveries'));
      deliveries.value = list.items;
      problem.value = null;
    } catch (error) {
      problem.value = error instanceof Problem ? error.message : String(error);
    }
  };
  useEffect(() => {
    load();
    const clock = setInterval(() => document.hidden || load(), POLL_MS);
    return () => clearInterval(clock);
  }, []);

  const minutes = useComputed(() => minutesOf(newestFirst.value, MINUTES));
  const throughput = useMemo<[number[], number[], number[]]>(
    () => [
      minutes.value.map((one) => one.at),
      minutes.value.map((one) => one.read),
      minutes.value.map((one) => one.failed),
    ],
    [minutes.value],
  );
  const latency = useMemo<[number[], (number | null)[], (number | null)[]]>(
    () => [
      minutes.value.map((one) => one.at),
      minutes.value.map((one) => one.median),
      minutes.value.map((one) => one.p95),
    ],
    [minutes.value],
  );
  const failures = failuresOf(newestFirst.value);
  const waiting = newestFirst.value.filter(isOpen).length;
  const value = (name: string) => metrics.value.get(name)?.[0]?.value;

  return (
    <main class="operations">
      {problem.value && <ErrorLine>{problem.value}</ErrorLine>}
      <div class="cards">
        <Card title={text.workers} value={value('emx_workers')} bad={value('emx_workers') === 0} />
        <Card title={text.waiting} value={waiting} />
        {metrics.value.get('emx_queue_depth')?.map(({ labels, value: depth }) => (
          <Card key={labels.queue} title={text.queue(labels.queue ?? '')} value={depth} />
        ))}
        {Object.entries(checks.value ?? {}).map(([part, fine]) => (
          <Card
            key={part}
            title={text.parts[part as keyof typeof text.parts]}
            value={fine ? text.fine : text.away}
            bad={!fine}
          />
        ))}
      </div>
      <div class="charts">
        <Chart
          title={text.throughput}
          data={throughput}
          series={[
            { label: text.read, colour: '#3f9c6a' },
            { label: text.failed, colour: '#d0453b' },
          ]}
        />
        <Chart
          title={text.latency}
          data={latency}
          series={[
            { label: text.median, colour: '#3b82c4' },
            { label: 'p95', colour: '#c9862b' },
          ]}
        />
      </div>
      <div class="tables">
        <section>
          <h2>{text.byPriority}</h2>
          <table>
            <thead>
              <tr>
                {[text.priority, text.images, text.median, 'p95', 'p99'].map((name) => (
                  <th key={name} scope="col">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {latencies(newestFirst.value).map((one) => (
                <tr key={one.priority}>
                  <td>{words.value.priorities[one.priority]}</td>
                  <td>{one.count}</td>
                  {[one.median, one.p95, one.p99].map((seconds, at) => (
                    <td key={`${one.priority}-${at}`}>{words.value.seconds(seconds)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
        <section>
          <h2>{text.failures}</h2>
          {failures.length ? (
            <ul class="plain">
              {failures.map((one) => (
                <li key={one.code}>
                  <strong>{one.count} ×</strong> {one.message} <a href={linkTo(one.job)}>{text.newest}</a>
                </li>
              ))}
            </ul>
          ) : (
            <p class="muted">{text.none}</p>
          )}
        </section>
        <section>
          <h2>{text.agreement}</h2>
          {agreement.value?.jobs ? (
            <>
              <p class="muted">{text.reviewed(agreement.value.jobs, agreement.value.agree)}</p>
              <table>
                <thead>
                  <tr>
                    {[text.finding, ...Object.values(words.value.feedback.verdicts)].map((name) => (
                      <th key={name} scope="col">
                        {name}
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  {agreement.value.findings.map((one) => (
                    <tr key={one.label}>
                      <td>{one.label}</td>
                      <td>{one.agreed}</td>
                      <td>{one.corrected}</td>
                      <td>{one.rejected}</td>
                      <td>{one.added}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </>
          ) : (
            <p class="muted">{text.none}</p>
          )}
        </section>
        <section>
          <h2>{text.deliveries}</h2>
          {deliveries.value.length ? (
            <ul class="plain">
              {deliveries.value.map((one) => (
                <li key={one.id}>
                  <span class={`delivery ${one.status}`}>{text.statuses[one.status]}</span>{' '}
                  {moment(one.created_at)} {text.tries(one.tries)} <span class="muted">{one.last_answer}</span>{' '}
                  {one.status === 'undelivered' && (
                    <button type="button" onClick={() => redeliver(one.id).then(load)}>
                      {text.resend}
                    </button>
                  )}
                </li>
              ))}
            </ul>
          ) : (
            <p class="muted">{text.none}</p>
          )}
        </section>
      </div>
      <p class="muted small">{text.source(newestFirst.value.length)}</p>
      <button type="button" onClick={() => open(null)}>
        {words.value.reading}
      </button>
    </main>
  );
}

async function redeliver(id: string): Promise<void> {
  await data(api.POST('/v1/webhooks/deliveries/{id}/redeliver', { params: { path: { id } } }));
}

function Card({
  title,
  value,
  bad = false,
}: {
  title: string;
  value: number | string | undefined;
  bad?: boolean;
}) {
  return (
    <div class={`card ${bad ? 'bad' : ''}`}>
      <span class="muted small">{title}</span>
      <strong>{value ?? '–'}</strong>
    </div>
  );
}
