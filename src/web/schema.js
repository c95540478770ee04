/** JSON Schema in words and as examples. */

/** The type in a few words: `text`, `list of whole numbers`, `one of a, b` … */
export function typeWords(schema) {
  if (schema === undefined || schema === true || Object.keys(schema).length === 0) return 'anything';
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches !== undefined) return [...new Set(branches.map(typeWords))].join(' or ');
  if (schema.allOf !== undefined) return 'object';
  const types = [schema.type ?? 'anything'].flat();
  return types.map((type) => oneType(type, schema)).join(' or ');
}

function oneType(type, schema) {
  switch (type) {
    case 'string':
      return 'text';
    case 'integer':
      return `whole number${range(schema)}`;
    case 'number':
      return `number${range(schema)}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return `list of ${typeWords(schema.items)}`;
    default:
      return type;
  }
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }) {
  const parts = [];
  // The bounds of exactly representable integers are no news.
  if (minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER) parts.push(`≥ ${minimum}`);
  if (exclusiveMinimum !== undefined) parts.push(`> ${exclusiveMinimum}`);
  if (maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER) parts.push(`≤ ${maximum}`);
  if (exclusiveMaximum !== undefined) parts.push(`< ${exclusiveMaximum}`);
  return parts.length === 0 ? '' : ` ${parts.join(', ')}`;
}

const EXAMPLES = {
  did: 'D0001',
  pid: 'P0001',
  tid: 'T0001',
  id: 'P0001',
  mid: 'EM0001',
  pmid: 'PM0001',
  emid: 'EM0001',
  name: 'flowers',
  desc: '',
  dataset_type: 'classification',
  project_type: 'classification',
  prj_type: 'classification',
  val_split: 0.2,
  test_split: 0.1,
};

/** A value that fits the schema, for forms and examples. */
export function example(schema, name = '') {
  if (schema === undefined) return null;
  if (name in EXAMPLES && schema.enum === undefined) return EXAMPLES[name];
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches !== undefined) return example(branches[0], name);
  switch ([schema.type].flat()[0]) {
    case 'string':
      return '';
    case 'integer':
      return Math.max(schema.minimum > Number.MIN_SAFE_INTEGER ? schema.minimum : 0, 0);
    case 'number':
      return schema.minimum ?? 0;
    case 'boolean':
      return false;
    case 'array':
      return [];
    case 'object':
      return Object.fromEntries((schema.required ?? []).map((key) => [key, example(schema.properties?.[key], key)]));
    default:
      return null;
  }
}

/** Rows [field, type, needed, description] of an object schema; nested fields as `a.b`, list entries as `a[].b`. */
export function rows(schema, prefix = '', depth = 0) {
  if (schema === undefined || depth > 4) return [];
  const parts = schema.allOf ?? schema.anyOf ?? schema.oneOf;
  if (parts !== undefined) {
    const seen = new Map();
    for (const part of parts) for (const row of rows(part, prefix, depth)) if (!seen.has(row[0])) seen.set(row[0], row);
    return [...seen.values()];
  }
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const own = [prefix + name, typeWords(field), required.has(name), field.description ?? ''];
    const entries = field.items?.properties !== undefined ? rows(field.items, `${prefix}${name}[].`, depth + 1) : [];
    const nested =
      field.properties !== undefined || field.anyOf !== undefined ? rows(field, `${prefix}${name}.`, depth + 1) : [];
    return [own, ...entries, ...nested];
  });
}
