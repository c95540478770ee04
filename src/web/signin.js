/** Hands the token over without leaving it in the browser's history. */
import { base } from './common.js';

const form = document.getElementById('form');
const alert = document.getElementById('alert');
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const token = document.getElementById('token').value.trim();
  const response = await fetch(`${base}?token=${encodeURIComponent(token)}`, { redirect: 'manual' });
  // A redirect that is not followed shows as an opaque answer: the token was right.
  if (response.type === 'opaqueredirect' || response.ok) {
    location.replace(base);
    return;
  }
  const answer = await response.json().catch(() => ({}));
  alert.textContent = answer.message ?? `The server answered ${response.status}.`;
});
