/** The API page: every route of openapi.json with its fields, a curl line and a form to try it. */
import { base, el, prose, table } from './common.js';
import { example, rows, typeWords } from './schema.js';

const at = (id) => document.getElementById(id);
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const schemaOf = (parameter) => parameter.schema ?? parameter.content?.['application/json']?.schema ?? {};

const fieldTable = (heads, body) =>
  body.length === 0 ? el('p', { class: 'dim' }, 'none') : el('div', { class: 'scroll' }, table(heads, body));

const fieldRow = ([name, type, needed, description]) =>
  el(
    'tr',
    {},
    el('td', { class: 'field' }, name, needed ? el('span', { class: 'need' }, 'required') : null),
    el('td', {}, type),
    el('td', { class: 'dim' }, prose(description)),
  );

/** One route with everything about it, built when it is first opened. */
class Operation {
  constructor(path, method, spec) {
    this.path = path;
    this.method = method;
    this.spec = spec;
    this.key = spec.operationId;
    this.body = el('div', { class: 'body' });
    this.node = el(
      'details',
      { class: 'card op', id: this.key, ontoggle: () => this.#fill() },
      el(
        'summary',
        {},
        el('span', { class: `verb ${method}` }, method.toUpperCase()),
        el('span', { class: 'path' }, path),
        el('span', { class: 'dim' }, spec.summary ?? ''),
      ),
      this.body,
    );
  }

  matches(text) {
    return `${this.method} ${this.path} ${this.spec.summary ?? ''}`.toLowerCase().includes(text);
  }

  #fill() {
    if (!this.node.open || this.body.childElementCount > 0) return;
    const { parameters = [], requestBody, description } = this.spec;
    const bodySchema = requestBody?.content['application/json'].schema;
    const fields = parameters.map((p) => [p.name, typeWords(schemaOf(p)), p.required === true, p.description ?? '']);
    if (bodySchema !== undefined) fields.push(...rows(bodySchema));
    const answers = Object.entries(this.spec.responses?.['200']?.content ?? {}).flatMap(([type, { schema }]) => {
      if (type !== 'application/json') return [[`(${type})`, 'bytes', false, '']];
      // Failures look the same everywhere and are told about above.
      const own = schema.anyOf?.[0] ?? schema;
      return rows(own);
    });
    this.body.append(
      el('p', { class: 'dim' }, prose(description ?? '')),
      el('h4', {}, 'Arguments'),
      fieldTable(['Name', 'Type', 'Meaning'], fields.map(fieldRow)),
      el('h4', {}, 'Answer'),
      fieldTable(
        ['Field', 'Type', 'Meaning'],
        answers.map(([name, type, , text]) => fieldRow([name, type, false, text])),
      ),
    );
    if (this.path !== '/events') this.#form(parameters, bodySchema);
  }

  #form(parameters, bodySchema) {
    this.inputs = parameters
      .filter((p) => p.in !== 'header')
      .map((p) => {
        const schema = schemaOf(p);
        const field = `${this.key}-${p.name}`;
        const input =
          schema.enum !== undefined
            ? el(
                'select',
                { id: field },
                [p.required ? null : el('option', { value: '' }, '')],
                schema.enum.map((value) => el('option', {}, String(value))),
              )
            : el('input', { type: 'text', id: field, placeholder: typeWords(schema) });
        input.addEventListener('input', () => this.#curl());
        return { parameter: p, input, label: el('label', { for: field, class: 'mono' }, p.name) };
      });
    this.json =
      bodySchema === undefined
        ? undefined
        : el('textarea', {
            rows: '6',
            class: 'mono',
            spellcheck: 'false',
            'aria-label': 'JSON body',
            oninput: () => this.#curl(),
          });
    if (this.json !== undefined) this.json.value = JSON.stringify(example({ type: 'object', ...bodySchema }), null, 2);
    this.curl = el('pre', {});
    this.result = el('pre', { hidden: true });
    this.took = el('span', { class: 'dim' });
    this.body.append(
      el('h4', {}, 'Try it'),
      ...this.inputs.map(({ input, label }) => el('div', { class: 'row' }, label, input)),
      this.json ?? '',
      this.curl,
      el('div', { class: 'row' }, el('button', { type: 'button', onclick: () => this.#send() }, 'Send'), this.took),
      this.result,
    );
    this.#curl();
  }

  #request() {
    let path = this.path;
    const query = new URLSearchParams();
    for (const { parameter, input } of this.inputs) {
      if (parameter.in === 'path') path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value !== '') query.set(parameter.name, input.value);
    }
    const text = query.toString();
    return {
      url: new URL(base + path.slice(1) + (text === '' ? '' : `?${text}`), location.href),
      body: this.json?.value,
    };
  }

  #curl() {
    const { url, body } = this.#request();
    const parts = ['curl'];
    if (this.method !== 'get') parts.push(`-X ${this.method.toUpperCase()}`);
    parts.push(quote(url.href));
    if (body !== undefined)
      parts.push(`\\\n  -H 'Content-Type: application/json' -d ${quote(body.replace(/\s*\n\s*/g, ' '))}`);
    this.curl.textContent = parts.join(' ');
  }

  async #send() {
    const { url, body } = this.#request();
    const started = performance.now();
    this.result.hidden = false;
    this.result.textContent = '…';
    try {
      const response = await fetch(url, {
        method: this.method.toUpperCase(),
        ...(body === undefined ? {} : { body, headers: { 'content-type': 'application/json' } }),
      });
      const text = await response.text();
      this.took.textContent = `${response.status}, ${Math.round(performance.now() - started)} ms, ${text.length} characters`;
      this.result.textContent = pretty(text);
    } catch (error) {
      this.took.textContent = '';
      this.result.textContent = String(error);
    }
  }
}

function pretty(text) {
  const shown = (value) =>
    value.length > 20_000 ? `${value.slice(0, 20_000)}\n… ${value.length - 20_000} more characters` : value;
  try {
    return shown(JSON.stringify(JSON.parse(text), null, 2));
  } catch {
    return shown(text);
  }
}

function build(api) {
  at('title').textContent = `${api.info.title} API ${api.info.version}`;
  at('intro').replaceChildren(...prose(api.info.description ?? ''));
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, spec] of Object.entries(item)) {
      const tag = spec.tags?.[0] ?? 'other';
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(new Operation(path, method, spec));
    }
  }
  const all = [...groups.values()].flat();
  const show = (text) => {
    at('list').replaceChildren(
      ...[...groups].flatMap(([tag, operations]) => {
        const found = operations.filter((operation) => operation.matches(text));
        if (found.length === 0) return [];
        return [
          el('h3', { class: 'toc-head' }, tag),
          ...found.map((o) =>
            el(
              'a',
              { class: 'toc', href: `#${o.key}` },
              el('span', { class: `verb ${o.method}` }, o.method.toUpperCase()),
              o.path,
            ),
          ),
        ];
      }),
    );
    for (const operation of all) operation.node.hidden = !operation.matches(text);
  };
  at('operations').replaceChildren(
    ...[...groups].flatMap(([tag, operations]) => [
      el('h2', {}, tag),
      ...operations.map((operation) => operation.node),
    ]),
  );
  show('');
  at('find').addEventListener('input', (event) => show(event.target.value.trim().toLowerCase()));
  const open = () => {
    const operation = all.find((one) => `#${one.key}` === location.hash);
    if (operation === undefined) return;
    operation.node.open = true;
    operation.node.scrollIntoView();
  };
  addEventListener('hashchange', open);
  open();
}

try {
  const response = await fetch(`${base}openapi.json`);
  build(await response.json());
} catch (error) {
  at('alert').textContent = `The description could not be loaded: ${error.message}`;
}
