/** A model version: formats, signature, and the proof that each export equals its source. */

import { readCard, type BatchParity, type Card, type FormatReport, type Tensor } from '../model/card';
import type { ModelTarget } from '../model/ids';
import { ModelStore, type ModelData } from '../model/modelstore';
import type { ModelVersion } from '../model/records';
import { bytesText, fullMomentText, momentText, numberText, threeDigits } from '../model/texts';
import { Pairs } from './Details';
import { useHost, useStore } from './host';
import { DownloadLink, ErrorNotice, Icon, Loading, Notice } from './parts';

const FORMATS: Record<string, string> = {
  onnx: 'ONNX',
  pt2: 'PyTorch graph (.pt2)',
  savedmodel: 'TensorFlow SavedModel',
  safetensors: 'Weights (safetensors)'
};

export function ModelView(props: { target: ModelTarget }): JSX.Element {
  const { api, events } = useHost();
  const { target } = props;
  const [store, data] = useStore<ModelData, ModelStore>(
    JSON.stringify(target),
    () => new ModelStore(target, api, events)
  );
  const { model, error } = data;
  if (error?.status === 404) {
    return (
      <Notice
        tone="warn"
        title={`There is no model ${target.name}${target.version === null ? '' : ` version ${target.version}`} for you.`}
      >
        It was removed, or it belongs to somebody else.
      </Notice>
    );
  }
  return (
    <article className="at-model" aria-label={`Model ${target.name}`} data-testid="atelier-model">
      {error && <ErrorNotice error={error} onRetry={() => void store.refresh()} />}
      {!model && !error && <Loading what={`model ${target.name}`} />}
      {model && <Known model={model} card={readCard(model.card)} archive={api.archiveUrl(model.name, model.version)} />}
    </article>
  );
}

function Known(props: { model: ModelVersion; card: Card; archive: string }): JSX.Element {
  const { model, card } = props;
  return (
    <>
      <header className="at-head">
        <div className="at-head-row">
          <h3 className="at-title">
            <span className="at-title-state">{model.name}</span>
            <span className="at-title-name">version {model.version}</span>
            {model.aliases.map(alias => (
              <span key={alias} className="at-tag">
                {alias}
              </span>
            ))}
          </h3>
          <div className="at-head-actions">
            <DownloadLink href={props.archive} name={`${model.name}-${model.version}.zip`}>
              Download ({bytesText(model.size_bytes)})
            </DownloadLink>
          </div>
        </div>
        <div className="at-meta">
          {card.framework && <span>{card.framework}</span>}
          <span title={fullMomentText(model.created_at)}>{momentText(model.created_at, Date.now())}</span>
          {model.run && (
            <span>
              from <code>{model.run}</code>
            </span>
          )}
          {card.revision && (
            <span>
              git <code>{card.revision.slice(0, 10)}</code>
            </span>
          )}
        </div>
      </header>
      {card.formats.map(format => (
        <Format key={format.name} format={format} />
      ))}
      {card.formats.length === 0 && <p className="at-quiet">The card of this model names no formats.</p>}
      <div className="at-details">
        <Tensors title="Inputs" tensors={card.inputs} />
        <Tensors title="Outputs" tensors={card.outputs} />
        {card.labels.length > 0 && (
          <div className="at-group">
            <h4 className="at-group-title">Labels</h4>
            <p className="at-labels">{card.labels.join(', ')}</p>
          </div>
        )}
        {card.metrics.length > 0 && (
          <div className="at-group">
            <h4 className="at-group-title">Metrics</h4>
            <Pairs pairs={card.metrics.map(metricPair)} />
          </div>
        )}
      </div>
    </>
  );
}

function Format(props: { format: FormatReport }): JSX.Element {
  const { format } = props;
  const title = FORMATS[format.name] ?? format.name;
  return (
    <div role="group" className="at-format" aria-label={title}>
      <div className="at-format-head">
        <h4>{title}</h4>
        {format.sizeBytes !== null && <span className="at-quiet">{bytesText(format.sizeBytes)}</span>}
        {format.equal !== null && (
          <span className={`at-verdict at-tone-${format.equal ? 'good' : 'bad'}`}>
            <Icon shape={format.equal ? 'check' : 'cross'} />
            <span>{format.equal ? 'Equal to its source' : 'Differs from its source'}</span>
          </span>
        )}
      </div>
      {format.batches.length > 0 && <Parity format={format} title={title} />}
      <p className="at-quiet at-format-foot">
        {[speedText(format), toleranceText(format)].filter(Boolean).join(' · ')}
      </p>
    </div>
  );
}

function Parity(props: { format: FormatReport; title: string }): JSX.Element {
  const { batches, latencies } = props.format;
  const timed = latencies.length > 0;
  return (
    <div className="at-scroll" tabIndex={0} role="group" aria-label={`Comparison of ${props.title} with its source`}>
      <table className="at-table at-numbers">
        <thead>
          <tr>
            <th scope="col">Batch</th>
            <th scope="col">Max. difference</th>
            <th scope="col">Relative</th>
            <th scope="col">Same label</th>
            {timed && <th scope="col">Source</th>}
            {timed && <th scope="col">Export</th>}
            <th scope="col">Within</th>
          </tr>
        </thead>
        <tbody>
          {batches.map((row, index) => {
            const latency = latencies.find(one => one.batch === row.batch);
            return (
              <tr key={index}>
                <td>{[row.batch, row.dims].filter(Boolean).join(', ')}</td>
                <td>{differenceText(row.maxAbs)}</td>
                <td>{differenceText(row.maxRel)}</td>
                <td>{shareText(row.labelsEqual)}</td>
                {timed && <td>{latency ? msText(latency.source) : '–'}</td>}
                {timed && <td>{latency ? msText(latency.exported) : '–'}</td>}
                <td>
                  <Within row={row} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Within(props: { row: BatchParity }): JSX.Element {
  const { within } = props.row;
  if (within === null) {
    return <>–</>;
  }
  return (
    <span className={`at-verdict at-tone-${within ? 'good' : 'bad'}`}>
      <Icon shape={within ? 'check' : 'cross'} />
      <span>{within ? 'yes' : 'no'}</span>
    </span>
  );
}

function Tensors(props: { title: string; tensors: Tensor[] }): JSX.Element | null {
  if (props.tensors.length === 0) {
    return null;
  }
  const pairs = props.tensors.map((one): [JSX.Element, JSX.Element] => [
    <code key="name">{one.name}</code>,
    <code key="shape">
      {one.dtype} [{one.shape.join(', ')}]
    </code>
  ]);
  return (
    <div className="at-group">
      <h4 className="at-group-title">{props.title}</h4>
      <Pairs pairs={pairs} />
    </div>
  );
}

function metricPair([name, value]: [string, number]): [string, JSX.Element] {
  return [
    name,
    <span key="value" className="at-whole">
      {numberText(value)}
    </span>
  ];
}

function differenceText(value: number | string | null): string {
  return value === null ? '–' : typeof value === 'number' ? (value === 0 ? '0' : value.toExponential(1)) : value;
}

function shareText(share: number | null): string {
  return share === null ? '–' : `${Number((share * 100).toFixed(2))} %`;
}

function msText(value: number): string {
  return `${threeDigits(value)} ms`;
}

function speedText(format: FormatReport): string {
  const small = format.latencies[0];
  if (!small || small.exported <= 0 || small.source <= 0) {
    return '';
  }
  const ratio = small.source / small.exported;
  const words =
    ratio >= 1 ? `${ratio.toFixed(1)} × as fast as its source` : `${(1 / ratio).toFixed(1)} × slower than its source`;
  return `At batch ${small.batch} it is ${words}`;
}

function toleranceText(format: FormatReport): string {
  const { tolerance } = format;
  return tolerance ? `allowed: ${tolerance.abs} absolute, ${tolerance.rel} relative` : '';
}
