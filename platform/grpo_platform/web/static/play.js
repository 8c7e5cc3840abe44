// A policy at play: watched, steered, wound back, branched and explained.
import {
  Dialog, Estimate, Loading, PageHead, Problem, api, html, known, number, say, short, t, useEffect, useReducer, useRef,
  useState,
} from './lib.js';
import { Said } from './said.js';

const SPEEDS = [0.25, 0.5, 1, 2, 4];

export default function PlayPage(props) {
  const asked = new URLSearchParams(location.search);
  const [model, job] = [props.model || asked.get('model'), props.job || asked.get('job')];
  const [own, setOwn] = useState(!job);
  const play = useSession(own ? { ...(job ? { job_id: job } : { model }), seed: Number(asked.get('seed')) || 0 }
    : { job_id: job, watch: true });
  const title = model || (job ? t('play.job', { id: short(job) }) : '');
  const head = html`<${PageHead} title=${title ? t('play.title', { name: title }) : t('play.watch')} trail=${job
    ? html`<a href=${`/app/jobs/${job}`}>${t('nav.jobs')}</a>` : html`<a href="/app/models">${t('nav.models')}</a>`}>
    ${!own && html`<button type="button" class="primary" onClick=${() => setOwn(true)}>${t('play.take_over')}</button>`}<//>`;
  if (!model && !job) return html`${head}<p>${t('play.nothing')}</p>`;
  if (play.error) return html`${head}<${Problem} error=${play.error} retry=${play.again} />`;
  if (!play.session || !play.frames[0]) return html`${head}<${Loading} />`;
  return html`${head}<${Stage} play=${play} own=${own} />`;
}

// A session of this page's own, or the stream that viewers share; ended when the page is left.
function useSession(body) {
  const key = JSON.stringify(body);
  const [tries, again] = useReducer((n) => n + 1, 0);
  const [state, setState] = useState({ frames: {} });
  const socket = useRef(null);
  useEffect(() => {
    let left = false;
    let session = null;
    let ended = '';
    let received = 0;
    const shown = {};
    setState({ frames: {} });
    const change = (values) => !left && setState((old) => ({ ...old, ...(typeof values === 'function' ? values(old) : values) }));
    const end = () => session && !session.shared
      && fetch(`/play/${session.session_id}`, { method: 'DELETE', keepalive: true }).catch(() => {});
    const open = async () => {
      try {
        session = await api('POST', '/play', body);
      } catch (error) {
        change({ error });
        return;
      }
      if (left) {
        end();
        return;
      }
      change({ session });
      const line = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/play/${session.session_id}/ws`);
      line.binaryType = 'arraybuffer';
      socket.current = line;
      line.onmessage = async ({ data }) => {
        if (typeof data === 'string') {
          const said = JSON.parse(data);
          if (said.type === 'job') change({ job: said });
          else if (said.type === 'error') say(said.detail, true);
          else if (said.type === 'end') ended = said.reason;
          return;
        }
        const turn = (received += 1);
        const length = new DataView(data).getUint32(0);
        const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
        const picture = header.image_bytes
          ? await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: 'image/jpeg' })) : null;
        if (shown[header.lane] > turn) return; // a later picture was ready sooner
        shown[header.lane] = turn;
        if (header.lanes === 1) shown[1] = Math.max(shown[1] || 0, turn);
        change((old) => {
          const frames = { ...old.frames, [header.lane]: { ...header, picture } };
          if (header.lanes === 1) delete frames[1];
          return { frames };
        });
      };
      line.onclose = () => change({ error: new Error(known[ended] || ended || t('play.ended')) });
    };
    open();
    addEventListener('pagehide', end);
    return () => {
      left = true;
      removeEventListener('pagehide', end);
      if (socket.current) socket.current.close();
      end();
    };
  }, [key, tries]);
  const send = (command, values = {}) => {
    if (socket.current && socket.current.readyState === 1) socket.current.send(JSON.stringify({ command, ...values }));
  };
  return { ...state, send, again };
}

function Stage({ play, own }) {
  const { session, frames, send } = play;
  const [frame, other] = [frames[0], frames[1]];
  const discrete = session.action.kind === 'Discrete';
  const keys = (event) => {
    if (!own || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === ' ' && /^(BUTTON|SUMMARY|A)$/.test(event.target.tagName)) return; // presses it
    const number = discrete && /^[0-9]$/.test(event.key) ? Number(event.key) + session.action.start : null;
    if (event.key === ' ') send(frame.playing ? 'pause' : 'play');
    else if (event.key === 'ArrowRight') send('step');
    else if (event.key === 'ArrowLeft' && frame.step) send('seek', { step: frame.step - 1 });
    else if (number !== null && number < session.action.start + session.action.n) {
      if (frame.playing) send('control', { by: 'human', action: number });
      else send('act', { action: number });
    } else if (event.key === 'Escape') send('control', { by: 'policy' });
    else return;
    event.preventDefault();
  };
  useEffect(() => {
    document.addEventListener('keydown', keys);
    return () => document.removeEventListener('keydown', keys);
  });
  return html`<div class="columns play">
    <section>
      <div class=${other ? 'lanes two' : 'lanes'}>
        <${Lane} frame=${frame} name=${other ? t('play.first') : ''} />
        ${other && html`<${Lane} frame=${other} name=${t('play.second')} />`}
      </div>
      ${own ? html`<${Controls} frame=${frame} other=${other} send=${send} />` : html`<p class="muted">${t('play.shared')}</p>`}
      <p class="muted" aria-live="polite">${play.job ? t('play.training', { status: t(`status.${play.job.status}`), n: play.job.timesteps, total: play.job.total_timesteps }) : ''}
        ${frame.checkpoint ? ` ${t('play.checkpoint_is', { name: frame.checkpoint })}` : ` ${t('play.waiting')}`}</p>
    </section>
    <section>
      <${Actions} session=${session} frame=${frame} send=${own ? send : null} />
      <${State} session=${session} frame=${frame} send=${own ? send : null} />
      ${own && html`<${Keep} session=${session} frame=${frame} />`}
    </section>
    ${own && html`<section><${Why} session=${session} frame=${frame} send=${send} /></section>`}</div>`;
}

function Lane({ frame, name }) {
  const canvas = useRef();
  useEffect(() => {
    if (!frame.picture || !canvas.current) return;
    canvas.current.width = frame.picture.width;
    canvas.current.height = frame.picture.height;
    canvas.current.getContext('2d').drawImage(frame.picture, 0, 0);
  }, [frame.picture]);
  const told = t('play.frame', { step: frame.step, reward: number(frame.return), value: number(frame.value) });
  return html`<figure class="card lane">
    ${name && html`<h2>${name}</h2>`}
    ${frame.picture ? html`<canvas ref=${canvas} role="img" aria-label=${told}></canvas>` : html`<p class="muted"><${Said} text=${frame.why_no_image} /></p>`}
    <figcaption aria-live=${frame.playing ? 'off' : 'polite'}><span>${told}</span>
      <span class="muted">${t('play.episode', { n: frame.episode, seed: String(frame.seed) })}
        ${frame.by === 'human' ? ` · ${t('play.human')}` : ''}${frame.over ? ` · ${t(frame.terminated ? 'play.terminated' : 'play.over')}` : ''}</span>
    </figcaption></figure>`;
}

function Controls({ frame, other, send }) {
  const last = Math.max(frame.last_step, frame.step);
  return html`<div class="card controls" role="group" aria-label=${t('play.controls')}>
    <button type="button" class="primary" onClick=${() => send(frame.playing ? 'pause' : 'play')}>${t(frame.playing ? 'play.pause' : 'play.play')} <kbd>␣</kbd></button>
    <button type="button" disabled=${!frame.step || !frame.can_branch} onClick=${() => send('seek', { step: frame.step - 1 })}>${t('play.back')} <kbd>←</kbd></button>
    <button type="button" disabled=${frame.over} onClick=${() => send('step')}>${t('play.step')} <kbd>→</kbd></button>
    <button type="button" onClick=${() => send('reset')}>${t('play.reset')}</button>
    <label>${t('play.speed')} <select value=${frame.speed} onChange=${(event) => send('play', { speed: Number(event.target.value) })}>
      ${SPEEDS.map((speed) => html`<option value=${speed} selected=${speed === frame.speed}>${number(speed)}×</option>`)}</select></label>
    <label class="check"><input type="checkbox" checked=${!frame.deterministic} onChange=${(event) => send('deterministic', { deterministic: !event.target.checked })} /> ${t('play.sample')}</label>
    ${frame.control === 'human' && html`<button type="button" onClick=${() => send('control', { by: 'policy' })}>${t('play.let_go')} <kbd>Esc</kbd></button>`}
    ${other && [0, 1].map((keep) => html`<button type="button" onClick=${() => send('unfork', { keep })}>${t(keep ? 'play.keep_second' : 'play.keep_first')}</button>`)}
    <label class="wide">${t('play.at', { step: frame.step, last })}
      <input type="range" min="0" max=${last} value=${frame.step} disabled=${!frame.can_branch || !last}
        onInput=${(event) => send('seek', { step: Number(event.target.value) })} /></label>
    ${frame.checkpoints.length > 1 && html`<label class="wide">${t('play.checkpoint', { name: frame.checkpoint })}
      <input type="range" min="0" max=${frame.checkpoints.length - 1} value=${frame.checkpoints.indexOf(frame.checkpoint)}
        aria-valuetext=${frame.checkpoint} onInput=${(event) => send('checkpoint', { checkpoint: frame.checkpoints[Number(event.target.value)] })} /></label>`}
  </div>`;
}

const shown = (action) => (Array.isArray(action) ? action.map((each) => number(each)).join(', ') : String(action));

function Actions({ session, frame, send }) {
  const { kind, start = 0, n = 0, low, high } = session.action;
  const [own, setOwn] = useState(null);
  if (kind === 'Discrete' && frame.action_probs) {
    return html`<div class="card"><h2>${t('play.actions')}</h2>
      <table class="bars"><thead class="hidden"><tr><th>${t('play.action')}</th><th>${t('play.probability')}</th><th>${t('jobs.actions')}</th></tr></thead><tbody>
      ${frame.action_probs.slice(0, n).map((share, i) => html`<tr class=${frame.next_action === i + start ? 'chosen' : ''}>
        <th scope="row"><kbd>${i + start}</kbd></th>
        <td><meter min="0" max="1" value=${share} aria-hidden="true"></meter> ${Math.round(share * 1000) / 10} %</td>
        ${send && html`<td><button type="button" class="quiet" aria-label=${t('play.act_on', { action: i + start })} disabled=${frame.over} onClick=${() => send('act', { action: i + start })}>${t('play.act')}</button>
          <button type="button" class="quiet" aria-label=${t('play.what_if_on', { action: i + start })} disabled=${frame.over || !frame.can_branch} onClick=${() => send('fork', { action: i + start })}>${t('play.what_if')}</button></td>`}</tr>`)}
      </tbody></table></div>`;
  }
  if (!frame.mean) return html`<div class="card"><h2>${t('play.actions')}</h2><p>${shown(frame.next_action ?? '–')}</p></div>`;
  const flat = (value) => [value].flat(Infinity);
  const chosen = own || flat(frame.next_action);
  return html`<div class="card"><h2>${t('play.actions')}</h2>
    <table><thead><tr><th></th><th>${t('play.mean')}</th><th>${t('play.std')}</th>${send && html`<th>${t('play.yours')}</th>`}</tr></thead><tbody>
    ${flat(frame.mean).map((mean, i) => html`<tr><th scope="row">${i}</th><td>${number(mean)}</td><td>${number(flat(frame.std)[i])}</td>
      ${send && html`<td><input type="number" step="any" min=${low[i]} max=${high[i]} aria-label=${t('play.number', { n: i })} value=${chosen[i]}
        onInput=${(event) => setOwn(chosen.map((old, j) => (j === i ? Number(event.target.value) : old)))} /></td>`}</tr>`)}</tbody></table>
    ${send && html`<div class="actions"><button type="button" disabled=${frame.over} onClick=${() => send('act', { action: chosen })}>${t('play.act')}</button>
      <button type="button" disabled=${frame.over || !frame.can_branch} onClick=${() => send('fork', { action: chosen })}>${t('play.what_if')}</button></div>`}</div>`;
}

function State({ session, frame, send }) {
  const [set, setSet] = useState({});
  const numbers = Object.entries(frame.state).filter(([, value]) => typeof value === 'number');
  const observed = frame.observation || [];
  const names = session.features.length ? session.features : observed.map((_, i) => `[${i}]`);
  const put = (event) => {
    event.preventDefault();
    send('disturb', { state: set });
    setSet({});
  };
  return html`<div class="card"><h2>${t('play.state')}</h2>
    <form onSubmit=${put}><table><tbody>
    ${numbers.length ? numbers.map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${value.toFixed(4)}</td>
      ${send && frame.can_branch && html`<td><input type="number" step="any" aria-label=${t('play.set_of', { name })} value=${set[name] ?? ''}
        onInput=${(event) => setSet(event.target.value === '' ? {} : { ...set, [name]: Number(event.target.value) })} /></td>`}</tr>`)
    : observed.map((value, i) => html`<tr><th scope="row">${names[i]}</th><td>${number(value)}</td></tr>`)}</tbody></table>
    ${send && frame.can_branch && numbers.length > 0 && html`<button disabled=${!Object.keys(set).length}>${t('play.disturb')}</button>`}</form></div>`;
}

// What every action leads to: a dot a continuation, the mean with its interval, and all as a table.
function Why({ session, frame, send }) {
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  const ask = async () => {
    setBusy(true);
    try {
      setFound(await api('POST', `/play/${session.session_id}/explain`, {}));
    } catch (error) {
      say(error.message, true);
    }
    setBusy(false);
  };
  const here = found && found.at === frame.at;
  const all = found ? found.actions.flatMap((each) => each.returns) : [];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (value) => (high > low ? 2 + (96 * (value - low)) / (high - low) : 50);
  const most = found && found.attribution ? Math.max(...found.attribution.features.map((each) => Math.abs(each.attribution))) : 1;
  return html`<section class="card why" aria-busy=${busy}>
    <div class="card-head"><h2>${t('play.why')}</h2>
      ${busy ? html`<button type="button" onClick=${() => send('cancel')}>${t('cancel')}</button>`
        : html`<button type="button" disabled=${!frame.can_branch || frame.over} onClick=${ask}>${t('play.explain')}</button>`}</div>
    <p class="muted" aria-live="polite">${!frame.can_branch ? html`<${Said} text=${session.branching_reason} />` : busy ? t('play.branching') : found
      ? `${t('play.explained', { step: found.step, n: found.continuations, seconds: number(found.seconds) })}${here ? '' : ` ${t('play.explained_elsewhere')}`}` : t('play.why_text')}</p>
    ${found && html`<div class="scroll"><table><thead><tr><th>${t('play.action')}</th><th>${t('play.returns')}</th><th>${t('play.mean')}</th>
      <th>${t('play.difference')}</th><th>${t('play.parts')}</th><th>${t('play.see')}</th></tr></thead><tbody>
      ${found.actions.map((each, i) => html`<tr><th scope="row">${shown(each.action)}${i === 0 ? ` (${t('play.preferred')})` : ''}</th>
        <td><svg class="dots" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label=${t('play.range', { low: number(Math.min(...each.returns)), high: number(Math.max(...each.returns)) })}>
          ${each.returns.map((value, j) => html`<rect x=${x(value) - 0.4} y=${3 + ((j * 7) % 13)} width="0.9" height="2" />`)}</svg></td>
        <td><${Estimate} value=${each.mean.estimate} low=${each.mean.low} high=${each.mean.high} /></td>
        <td>${each.difference ? html`<${Estimate} value=${each.difference.estimate} low=${each.difference.low} high=${each.difference.high} />` : '–'}</td>
        <td>${each.parts_at ?? '–'}</td>
        <td>${['typical', 'worst'].map((which) => html`<button type="button" class="quiet" aria-label=${t(`play.see_${which}`, { action: shown(each.action) })} disabled=${!here}
          onClick=${() => send('replay', { actions: each[which] })}>${t(`play.${which}`)}</button>`)}</td></tr>`)}</tbody></table></div>
      ${found.attribution ? html`<h3>${t('play.attribution')}</h3><div class="scroll"><table><thead><tr><th>${t('play.feature')}</th><th>${t('play.now')}</th><th>${t('play.usual')}</th><th>${t('play.counts')}</th></tr></thead><tbody>
        ${[...found.attribution.features].sort((a, b) => Math.abs(b.attribution) - Math.abs(a.attribution)).slice(0, 12).map((each) => html`<tr><th scope="row">${each.name}</th>
          <td>${number(each.value)}</td><td>${number(each.baseline)}</td><td><meter class=${each.attribution < 0 ? 'against' : ''} min="0" max=${most || 1} value=${Math.abs(each.attribution)} aria-hidden="true"></meter> ${number(each.attribution)}</td></tr>`)}</tbody></table></div>`
      : html`<p class="muted"><${Said} text=${found.why_no_attribution} /></p>`}`}
  </section>`;
}

function Keep({ session, frame }) {
  const [open, setOpen] = useState(false);
  const keep = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    try {
      const made = await api('POST', `/play/${session.session_id}/scenario`, { scenario: form.get('scenario'), assertions: [form.get('assertion')] });
      say(t('play.kept', { name: made.model_name, scenario: made.scenario }));
      setOpen(false);
    } catch (error) {
      say(error.message, true);
    }
  };
  return html`<div><button type="button" disabled=${!frame.can_branch || frame.over} onClick=${() => setOpen(true)}>${t('play.keep')}</button>
    ${open && html`<${Dialog} title=${t('play.keep')} onClose=${() => setOpen(false)}><form onSubmit=${keep}>
      <label for="scenario">${t('play.scenario')}</label><input id="scenario" name="scenario" required maxlength="64" value=${`step ${frame.step} of seed ${frame.seed}`} />
      <label for="assertion">${t('play.assertion')}</label><input id="assertion" name="assertion" required value="return >= 100" />
      <div class="dialog-foot"><button class="primary">${t('play.keep_do')}</button></div></form><//>`}</div>`;
}
