// The form that starts a job or an experiment: fields from the API's own schema, and the same request as
// curl, on the command line and in Python.
import { Copy, Dialog, Loading, Tabs, api, get, html, language, say, short, t, useEffect, useMemo, useRef, useState } from './lib.js';

const TIMESTEPS = 10000;
const FIRST = ['env_name', 'total_timesteps', 'model_name', 'reward_function_type', 'seed', 'seeds'];
const GROUPS = {
  learning: ['learning_rate', 'learning_rate_schedule', 'log_std_rate', 'n_steps', 'batch_size', 'n_epochs', 'gamma',
    'clip_range', 'clip_range_high', 'ent_coef', 'kl_coef', 'reference_iterations', 'max_grad_norm', 'bootstrap',
    'normalize_observations', 'normalize_rewards', 'init_from'],
  groups: ['num_groups', 'group_size', 'advantage', 'start_states', 'branch_probability'],
  policy: ['policy', 'net_arch', 'policy_kwargs', 'device'],
  evaluation: ['eval_freq', 'n_eval_episodes', 'target_return', 'promote', 'register', 'failure_gallery'],
  environment: ['env_kwargs', 'wrappers', 'env_workers'],
};

export default function Start({ onClose, onStarted }) {
  const [fields, setFields] = useState(null);
  const [words, setWords] = useState({});
  const [given, setGiven] = useState({ env_name: 'CartPole-v1' });
  const [faults, setFaults] = useState({});
  const [message, setMessage] = useState('');
  const [busy, setBusy] = useState(false);
  const { names, preset, note } = useEnvironment(given.env_name);
  const form = useRef();
  useEffect(() => {
    if (language !== 'en') fetch(new URL(`fields.${language}.json`, import.meta.url)).then((reply) => reply.json()).then(setWords, () => {});
    get('/openapi.json').then((schema) => setFields(schema.components.schemas.TrainBody.properties), (error) => setMessage(error.message));
  }, []);
  useEffect(() => {
    if (fields) form.current.querySelector('input').focus();
  }, [fields]);
  const usual = evaluations(preset, given);
  const request = useMemo(() => (fields ? read(fields, { ...given, eval_freq: given.eval_freq || usual || '' }) : {}), [fields, given, usual]);
  const set = (name, text) => {
    setGiven({ ...given, [name]: text });
    setFaults({ ...faults, [name]: '' });
  };
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setMessage('');
    try {
      const reply = await api('POST', '/train', request);
      const id = reply.experiment_id || reply.job_id;
      say(t('start.started', { id: short(id) }));
      onStarted();
      form.current.closest('dialog').close();
    } catch (error) {
      const found = {};
      for (const fault of error.errors || []) found[fault.field.split('.')[0]] = fault.detail;
      setFaults(found);
      setMessage(error.message);
      const wrong = form.current.querySelector(Object.keys(found).map((name) => `[name="${name}"]`).join(',') || '#start-message');
      if (wrong) {
        const closed = wrong.closest('details');
        if (closed) closed.open = true;
        wrong.focus();
      }
    } finally {
      setBusy(false);
    }
  };
  const row = (name) => fields[name] && html`<${Field} key=${name} name=${name} schema=${fields[name]} words=${words} preset=${name === 'eval_freq' ? usual : preset[name]}
    value=${given[name] ?? ''} fault=${faults[name]} options=${name === 'env_name' ? names : null} note=${name === 'env_name' ? note : null}
    onInput=${(text) => set(name, text)} />`;
  const rest = fields ? Object.keys(fields).filter((name) => !FIRST.includes(name) && !Object.values(GROUPS).flat().includes(name)) : [];
  const groups = { ...GROUPS, limits: rest };
  return html`<${Dialog} title=${t('start.title')} wide onClose=${onClose}>
    <form ref=${form} class="start" onSubmit=${submit} novalidate>
      <div class="fields">
        ${!fields ? !message && html`<${Loading} />` : html`${FIRST.slice(0, 1).map(row)}
          <${Gallery} chosen=${given.env_name} onChoose=${(name) => set('env_name', name)} />${FIRST.slice(1).map(row)}
          ${Object.entries(groups).map(([group, names]) => html`<details key=${group}>
            <summary>${t(`start.${group}`)}<span class="muted">${told(names, given)}</span></summary>${names.map(row)}</details>`)}`}
      </div>
      <div class="same"><${Same} request=${request} /></div>
      <div class="dialog-foot">
        <p id="start-message" class="error" role="alert" tabindex="-1">${message}</p>
        <button type="button" onClick=${() => form.current.closest('dialog').close()}>${t('cancel')}</button>
        <button class="primary" disabled=${busy || !fields}>${request.seeds === undefined ? t('start.job') : t('start.experiment')}</button>
      </div>
    </form><//>`;
}

// About ten evaluations to look at while it trains.
function evaluations(preset, given) {
  const total = Number(given.total_timesteps || preset.total_timesteps || TIMESTEPS);
  return total >= 1 ? String(Math.ceil(total / 10)) : undefined;
}

const told = (names, given) => names.filter((name) => (given[name] ?? '') !== '').join(', ');

function Field({ name, schema, words, preset, value, fault, options, note, onInput }) {
  const parts = schema.anyOf || [schema];
  const kinds = parts.map((part) => part.type);
  const names = schema.enum || (kinds.includes('boolean') ? ['true', 'false'] : null);
  const help = marked([words[schema.description] || schema.description, range(parts)].filter(Boolean).join(' '));
  const inForce = preset !== undefined ? preset : schema.default;
  const placeholder = inForce === undefined || inForce === null ? t('start.none') : typeof inForce === 'object' ? JSON.stringify(inForce) : String(inForce);
  const described = `${name}-help${fault ? ` ${name}-fault` : ''}`;
  const common = { id: `field-${name}`, name, value, 'aria-describedby': described, 'aria-invalid': fault ? 'true' : null };
  return html`<div class="field">
    <label for=${`field-${name}`}><code>${name}</code></label>
    ${names ? html`<select ...${common} onChange=${(e) => onInput(e.target.value)}>
        <option value="">${placeholder} (${t('start.default')})</option>${names.map((n) => html`<option value=${n}>${n}</option>`)}</select>`
      : html`<input ...${common} placeholder=${placeholder} list=${options ? `${name}-list` : null} autocomplete="off" spellcheck="false"
        inputmode=${kinds.includes('integer') || kinds.includes('number') ? 'decimal' : null} onInput=${(e) => onInput(e.target.value)} />`}
    ${options && html`<datalist id=${`${name}-list`}>${options.map((o) => html`<option value=${o} />`)}</datalist>`}
    ${fault && html`<p class="error" id=${`${name}-fault`}>${fault}</p>`}
    <p class="help" id=${`${name}-help`}>${help}${note && html` <strong>${note}</strong>`}</p></div>`;
}

const KNOWN = ['CartPole-v1', 'Acrobot-v1', 'MountainCar-v0', 'Pendulum-v1', 'MountainCarContinuous-v0', 'LunarLander-v3', 'BipedalWalker-v3', 'FrozenLake-v1'];

// Pictures of environments to choose from, the best known first, each in its newest version; once a name
// is typed, those that it may be the beginning of.
function Gallery({ chosen, onChoose }) {
  const [known, setKnown] = useState([]);
  const [all, setAll] = useState(false);
  useEffect(() => {
    let left = false;
    get('/environments?limit=200').then(({ environments }) => {
      const place = (one) => (KNOWN.indexOf(one.env_name) + KNOWN.length + 1) % (KNOWN.length + 1);
      const newest = new Map(environments.map((one) => [one.env_name.replace(/-v\d+$/, ''), one]));
      if (!left) setKnown([...newest.values()].filter((one) => one.trainable).sort((a, b) => place(a) - place(b)));
    }, () => {});
    return () => {
      left = true;
    };
  }, []);
  const wanted = known.some((one) => one.env_name === chosen) ? '' : chosen.toLowerCase();
  const found = known.filter((one) => one.env_name.toLowerCase().includes(wanted));
  const shown = all ? found : found.slice(0, 8);
  if (!found.length) return null;
  return html`<div class="gallery" role="group" aria-label=${t('start.gallery')}>${shown.map((one) => html`
      <button type="button" key=${one.env_name} aria-pressed=${one.env_name === chosen} onClick=${() => onChoose(one.env_name)}
        title=${`${one.observation_space} → ${one.action_space}`}><${Picture} name=${one.env_name} /><span>${one.env_name}</span></button>`)}
    ${found.length > shown.length && html`<button type="button" class="quiet" onClick=${() => setAll(true)}>${t('start.more', { n: found.length - shown.length })}</button>`}</div>`;
}

// What an environment looks like, once the server has drawn it; until then, and where it cannot be, its initials.
function Picture({ name }) {
  const [source, setSource] = useState(null);
  useEffect(() => {
    let left = false;
    let made = null;
    const look = async (turns) => {
      const reply = await fetch(`/environments/picture?env_name=${encodeURIComponent(name)}`).catch(() => null);
      if (left || !reply || !turns) return;
      if (reply.status === 202) {
        setTimeout(look, 1500, turns - 1);
      } else if (reply.status === 200) {
        made = URL.createObjectURL(await reply.blob());
        if (!left) setSource(made);
      }
    };
    look(40);
    return () => {
      left = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [name]);
  return source ? html`<img src=${source} alt="" width="120" height="80" />` : html`<i aria-hidden="true">${name.replace(/[^A-Z]/g, '').slice(0, 2) || name.slice(0, 2)}</i>`;
}

const marked = (text) => text.split('`').map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));

function range(parts) {
  for (const part of parts) {
    const low = part.minimum ?? part.exclusiveMinimum;
    if (low !== undefined && part.maximum !== undefined) {
      return t(part.minimum === undefined ? 'start.above' : 'start.range', { low, high: part.maximum });
    }
  }
  return '';
}

// What the API knows of an environment, once its name has rested: its preset, or why it cannot be trained.
function useEnvironment(name) {
  const [known, setKnown] = useState({ names: ['CartPole-v1'], preset: {}, note: '' });
  useEffect(() => {
    let left = false;
    const timer = setTimeout(async () => {
      const found = await get(`/environments?limit=50&name=${encodeURIComponent(name || '')}`).catch(() => ({ environments: [] }));
      if (left) return;
      const one = found.environments.find((env) => env.env_name === name);
      setKnown({
        names: found.environments.map((env) => env.env_name),
        preset: one ? one.preset : {},
        note: one && one.action_space ? `${one.observation_space} → ${one.action_space}` : '',
      });
    }, 300);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [name]);
  return known;
}

// The request that the texts of the fields stand for; what is no value of its type is sent as it is, and
// the API says what is wrong with it.
function read(fields, given) {
  const request = {};
  for (const [name, text] of Object.entries(given)) {
    if (text.trim() === '' || !fields[name]) continue;
    const kinds = (fields[name].anyOf || [fields[name]]).map((part) => part.type);
    request[name] = parse(text.trim(), kinds);
  }
  return request;
}

function parse(text, kinds) {
  if ((kinds.includes('integer') || kinds.includes('number')) && /^[-+]?[\d.]+(e[-+]?\d+)?$/i.test(text)) return Number(text);
  if (kinds.includes('boolean')) return text === 'true';
  if (kinds.includes('array') && /^\d+(\s*,\s*\d+)+$/.test(text)) return text.split(',').map(Number);
  if (kinds.includes('array') || kinds.includes('object')) {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  return text;
}

// --- the same request elsewhere

const quoted = (text) => (/^[\w./@:=,+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
const plain = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

function python(value) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object') return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(', ')}}`;
  return JSON.stringify(value);
}

export const WAYS = {
  curl: (request) => `curl ${location.origin}/train \\
  -H 'Content-Type: application/json' \\
  -d ${quoted(JSON.stringify(request))}`,
  cli: (request) => {
    const options = { env_name: '--env', total_timesteps: '--timesteps', reward_function_type: '--reward', seed: '--seed', seeds: '--seeds', register: '--register' };
    const words = Object.entries(request).filter(([name]) => name !== 'model_name').map(([name, value]) => {
      const text = name === 'seeds' && Array.isArray(value) ? value.join(',') : plain(value);
      return options[name] ? `${options[name]} ${quoted(text)}` : `-s ${quoted(`${name}=${text}`)}`;
    });
    return ['grpo-platform train', request.model_name && quoted(request.model_name), ...words].filter(Boolean).join(' \\\n  ');
  },
  python: (request) => {
    const call = request.seeds === undefined ? 'start_training' : 'start_experiment';
    const { seeds, ...others } = request;
    const values = Object.entries(others).map(([name, value]) => `    ${name}=${python(value)},\n`).join('');
    return `from grpo_platform.client import GRPOClient

client = GRPOClient(${JSON.stringify(location.origin)})
started = client.${call}(
${seeds === undefined ? '' : `    ${python(seeds)},\n`}${values})`;
  },
};

function Same({ request }) {
  const [way, setWay] = useState('curl');
  const text = WAYS[way](request);
  return html`<h3>${t('start.same')}</h3>
    <${Tabs} label=${t('start.same')} chosen=${way} onChoose=${setWay} tabs=${[['curl', 'curl'], ['cli', t('start.cli')], ['python', 'Python']]} />
    <pre tabindex="0">${text}</pre><${Copy} text=${text} />`;
}
