// Starts a page: the module of this path, and the switches of language and theme.
import { Problem, html, render, t } from './lib.js';

const PAGES = [
  [/^\/app$/, () => import('./jobs.js')],
  [/^\/app\/jobs\/(?<id>[^/]+)$/, () => import('./job.js')],
  [/^\/app\/experiments\/(?<id>[^/]+)$/, () => import('./experiment.js')],
  [/^\/app\/models$/, () => import('./models.js')],
  [/^\/app\/models\/(?<name>[^/]+)$/, () => import('./model.js')],
  [/^\/app\/compare$/, () => import('./compare.js')],
  [/^\/app\/serving$/, () => import('./serving.js')],
  [/^\/app\/play$/, () => import('./play.js')],
];

const main = document.getElementById('main');

async function start() {
  const path = location.pathname.replace(/\/$/, '');
  for (const [pattern, load] of PAGES) {
    const match = pattern.exec(path);
    if (match) {
      const names = Object.entries(match.groups || {}).map(([key, value]) => [key, decodeURIComponent(value)]);
      const page = await load();
      main.textContent = '';
      render(html`<${page.default} ...${Object.fromEntries(names)} />`, main);
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
