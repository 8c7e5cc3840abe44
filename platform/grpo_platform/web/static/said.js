// What records came to, in sentences of the page's language; figures come from the records, never from
// the server's English.
import { html, known, language, number, t } from './lib.js';

export const sentences = (parts) => parts.filter(Boolean).join(language === 'ja' ? '' : ' ');
const figure = (value, low, high, level = 95) => t('said.figure', { value: number(value), low: number(low), high: number(high), level: number(level) });

// Of a job, a version or an experiment: beside random actions and beside where training started.
export function verdict({ random, start }) {
  const ahead = (side) => (side.ci_low ?? side.low) > 0;
  const told = (side) => figure(side.difference ?? side.estimate, side.ci_low ?? side.low, side.ci_high ?? side.high);
  const kind = ahead(random) ? (ahead(start) ? 'both' : 'random') : ahead(start) ? 'start' : 'neither';
  return t(`learned.${kind}`, { random: told(random), start: told(start) });
}

// Why a version serves or does not; `baselines`: its verdict, where that is not told beside it.
export function decision(d, baselines) {
  if (d.note === null) return d.reason; // of an earlier release
  const stays = d.champion_after !== null && d.champion_after !== d.version;
  return sentences([
    d.action === 'train' ? d.note && t('decision.chosen') : d.note,
    d.suite_passed !== null && t(d.suite_passed ? 'decision.suite_passed' : 'decision.suite_failed'),
    d.forced && t('decision.forced'),
    ...grounds(d, baselines),
    stays && t('decision.stays', { version: String(d.champion_after) }),
  ]);
}

function grounds(d, baselines) {
  const before = String(d.champion_before);
  const c = d.comparison;
  if (d.verdict === 'rolled_back') return [t('decision.back', { before, version: String(d.version) })];
  if (c) {
    const kind = c.equal ? 'equal' : c.ci_low > 0 ? 'better' : c.ci_high < 0 ? 'worse' : 'open';
    return [t(`decision.${kind}`), t('decision.figures', { candidate: number(c.candidate_mean), champion: number(c.champion_mean), version: String(c.champion), n: c.episodes,
      difference: figure(c.difference, c.ci_low, c.ci_high) }), c.ended === 'seconds' && t('decision.no_time')];
  }
  if (d.rule === 'never') return [t('decision.never')];
  if (d.champion_before === d.version) return [t('decision.already')];
  if (d.champion_before === null && d.promoted) return [t('decision.first')];
  if (d.rule === 'always') return [t('decision.always')];
  if (d.suite_passed === false) return [];
  if (d.champion_before === null) return [baselines && verdict(baselines), t('decision.unproven')];
  return [t('decision.incomparable', { version: before })];
}

// Which seed of an experiment was chosen, how it does, and why it serves or does not.
export function selection(s) {
  if (!s.decision) return s.reason; // of an earlier release, or not registered
  const e = s.evaluation;
  return sentences([
    t(`selection.${s.rule}`, { seed: String(s.seed), mean: number(s.chosen_by) }),
    e ? t('selection.afresh', { n: e.episodes, figure: figure(e.mean, e.ci_low, e.ci_high) }) : t('selection.not_afresh'),
    decision({ ...s.decision, note: '' }),
  ]);
}

// What a pair of a comparison shows, told from the better one's side; `brief`: no more than that.
export function pair(p, labels, brief) {
  const turned = p.verdict === 'second';
  const [one, other] = turned ? [labels[p.second], labels[p.first]] : [labels[p.first], labels[p.second]];
  const level = 100 * p.confidence;
  const told = ({ estimate, low, high }) => (turned ? figure(-estimate, -high, -low, level) : figure(estimate, low, high, level));
  const percent = (share) => number(Math.round(100 * (turned ? 1 - share : share)));
  const [n, m] = p.units;
  return sentences([
    t(p.verdict === 'none' ? 'pair.none' : 'pair.better', { one, other, difference: told(p.mean), units: t(p.paired ? 'pair.pairs' : 'pair.values', { n, m }) }),
    !brief && p.iqm && t('pair.more', { one, other, iqm: told(p.iqm), chance: percent(p.probability.estimate),
      low: percent(turned ? p.probability.high : p.probability.low), high: percent(turned ? p.probability.low : p.probability.high) }),
  ]);
}

// A sentence of the server's: in the page's language where the catalogue has it, else marked as English.
export const Said = ({ text }) => (text in known || language === 'en' ? known[text] || text : html`<span lang="en">${text}</span>`);
