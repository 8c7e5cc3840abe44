// Starts a page: the module of this path, and the switches of language and theme.
import { Problem, ahead, html, query, render, t } from './lib.js';

// the module of each page, and what it asks for first
const PAGES = [
  [/^\/app$/, () => import('./jobs.js'), () => `/${address.get('view') === 'experiments' ? 'experiments' : 'training/jobs'}${query({
    status: address.get('status'), env_name: address.get('env_name'), model_name: address.get('model_name'), limit: 25 })}`],
  [/^\/app\/jobs\/(?<id>[^/]+)$/, () => import('./job.js'), ({ id }) => `/training/${id}/status`],
  [/^\/app\/experiments\/(?<id>[^/]+)$/, () => import('./experiment.js'), ({ id }) => `/experiments/${id}`],
  [/^\/app\/models$/, () => import('./models.js'), () => '/models?limit=100'],
  [/^\/app\/models\/(?<name>[^/]+)$/, () => import('./model.js'), ({ name }) => `/models/${encodeURIComponent(name)}`],
  [/^\/app\/compare$/, () => import('./compare.js')],
  [/^\/app\/serving$/, () => import('./serving.js'), () => '/serving'],
  [/^\/app\/play$/, () => import('./play.js')],
];

const address = new URLSearchParams(location.search);
const main = document.getElementById('main');

async function start() {
  const path = location.pathname.replace(/\/$/, '');
  for (const [pattern, load, first] of PAGES) {
    const match = pattern.exec(path);
    if (match) {
      const names = Object.entries(match.groups || {}).map(([key, value]) => [key, decodeURIComponent(value)]);
      const values = Object.fromEntries(names);
      if (first) ahead(first(values)); // while the module loads
      const page = await load();
      main.textContent = '';
      render(html`<${page.default} ...${values} />`, main);
      return;
    }
  }
  throw new Error(t('error.no_page'));
}

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/app; max-age=31536000; samesite=lax`;
}

document.getElementById('language').addEventListener('click', (event) => {
  remember('grpo_language', event.currentTarget.dataset.language);
  location.reload();
});

document.getElementById('theme').addEventListener('click', () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  remember('grpo_theme', root.dataset.theme);
  document.dispatchEvent(new Event('themechange'));
});

start().catch((error) => render(html`<${Problem} error=${error} />`, main));
