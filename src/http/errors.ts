/** Errors of the edge itself, and the one table from any thrown thing to an answer. */
import { randomBytes } from 'node:crypto';
import { ZodError, type z } from 'zod';
import { type ErrorCode, type ErrorDetails, OarlockError } from '../domain/errors.js';

/** A refusal by the edge that is not "handled request, HTTP 200": limits, authorisation, unknown paths. */
export class HttpError extends OarlockError {
  readonly httpStatus: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    httpStatus: number,
    code: ErrorCode,
    message: string,
    details: ErrorDetails = {},
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(code, message, details);
    this.name = 'HttpError';
    this.httpStatus = httpStatus;
    this.headers = headers;
  }
}

/** The failure half of every answer. */
export interface Failure {
  status: -1;
  message: string;
  code: ErrorCode;
  context: Record<string, unknown>;
  hint: string | null;
  retryable: boolean;
}

export interface MappedError {
  httpStatus: number;
  headers: Readonly<Record<string, string>>;
  body: Failure;
}

/** Told about unexpected errors; gets everything, the client only the id. */
export type ReportInternal = (logId: string, error: unknown) => void;

const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

type SystemError = readonly [ErrorCode, string, string];

const NO_PERMISSION: SystemError = [
  'forbidden_path',
  'The server may not read or write that file or folder.',
  'Check its owner and permissions.',
];

/** File-system codes that a client can do something about; the text never names a path. */
const SYSTEM_ERRORS: Readonly<Record<string, SystemError>> = {
  ENOENT: [
    'not_found',
    'A file or folder that this needs is not there.',
    'It may have been moved or deleted outside the server.',
  ],
  ENOSPC: ['resource_exhausted', 'The disk is full.', 'Free some space and try again.'],
  EDQUOT: ['resource_exhausted', 'The disk quota is used up.', 'Free some space and try again.'],
  EMFILE: [
    'resource_exhausted',
    'The server has too many files open.',
    'Try again, or raise the limit with ulimit -n.',
  ],
  ENFILE: ['resource_exhausted', 'The machine has too many files open.', 'Try again later.'],
  ENOMEM: ['resource_exhausted', 'The machine is out of memory.', 'Try again when less is running.'],
  EACCES: NO_PERMISSION,
  EPERM: NO_PERMISSION,
  EROFS: ['forbidden_path', 'That folder is on a read-only file system.', 'Choose another folder.'],
};

/** Maps whatever a handler threw. Unknown errors become `internal` with an id that finds them in the log. */
export function mapError(error: unknown, report: ReportInternal): MappedError {
  if (error instanceof OarlockError) {
    const http = error instanceof HttpError ? error : undefined;
    if (error.code === 'internal') return internal(error, report);
    return {
      httpStatus: http?.httpStatus ?? 200,
      headers: http?.headers ?? NO_HEADERS,
      body: {
        status: -1,
        message: clip(error.message, 500),
        code: error.code,
        context: clipped(error.context),
        hint: error.hint ?? null,
        retryable: error.retryable,
      },
    };
  }
  if (error instanceof ZodError) return mapError(validationError(error.issues, undefined), report);
  const known = SYSTEM_ERRORS[(error as { code?: string } | null)?.code ?? ''];
  if (known !== undefined) {
    report('-', error);
    const [code, message, hint] = known;
    return mapError(new OarlockError(code, message, { hint, cause: error }), report);
  }
  return internal(error, report);
}

/** A client that sends ten thousand characters as an id need not get them back. */
const clip = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function clipped(context: Record<string, unknown>): Record<string, unknown> {
  const long = Object.entries(context).filter(([, value]) => typeof value === 'string' && value.length > 300);
  return long.length === 0
    ? context
    : { ...context, ...Object.fromEntries(long.map(([key, value]) => [key, clip(value as string, 300)])) };
}

function internal(error: unknown, report: ReportInternal): MappedError {
  const logId = randomBytes(6).toString('hex');
  report(logId, error);
  return {
    httpStatus: 200,
    headers: NO_HEADERS,
    body: {
      status: -1,
      message: `Something went wrong inside the server; its log has the details under ${logId}.`,
      code: 'internal',
      context: { log_id: logId },
      hint: 'If it happens again, report it together with the lines around that id in the log.',
      retryable: false,
    },
  };
}

const KIND_WORDS: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
  null: 'null',
  undefined: 'left out',
};

const kindOf = (value: unknown): string => {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'string') return value.length > 40 ? 'text' : `the text ${JSON.stringify(value)}`;
  if (typeof value === 'object') return 'an object';
  return String(value);
};

const valueAt = (input: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((at, key) => (at === null || at === undefined ? undefined : (at as never)[key]), input);

const nameOf = (path: readonly PropertyKey[]): string =>
  path.reduce<string>((name, key) => {
    if (typeof key === 'number') return `${name}[${key}]`;
    return name === '' ? String(key) : `${name}.${String(key)}`;
  }, '');

type Issue = z.core.$ZodIssue;

/** One sentence for the first issue, with `context.field`, and the names of further wrong fields. */
export function validationError(issues: readonly Issue[], input: unknown): OarlockError {
  const issue = issues[0];
  if (issue === undefined) return new OarlockError('invalid_argument', 'The arguments are not valid.');
  const field = nameOf(issue.path);
  const context: Record<string, unknown> = { field };
  const others = [...new Set(issues.slice(1).map((other) => nameOf(other.path)))].filter((name) => name !== field);
  if (others.length > 0) context.also = others.slice(0, 20);
  return new OarlockError('invalid_argument', sentence(issue, field, valueAt(input, issue.path)), { context });
}

function sentence(issue: Issue, field: string, value: unknown): string {
  const missing = value === undefined;
  switch (issue.code) {
    case 'invalid_type': {
      const expected = KIND_WORDS[issue.expected] ?? issue.expected;
      return missing
        ? `${field} is missing; it must be ${expected}.`
        : `${field} must be ${expected}, not ${kindOf(value)}.`;
    }
    case 'invalid_value': {
      const words = issue.values.map(String).join(', ');
      const rule = issue.values.length === 1 ? `must be ${words}` : `must be one of ${words}`;
      return missing ? `${field} is missing; it ${rule}.` : `${field} ${rule}, not ${kindOf(value)}.`;
    }
    case 'too_small':
      return `${field} must ${limit(issue.origin, issue.minimum, issue.inclusive === false ? 'more than' : 'at least')}.`;
    case 'too_big':
      return `${field} must ${limit(issue.origin, issue.maximum, issue.inclusive === false ? 'less than' : 'at most')}.`;
    case 'not_multiple_of':
      return `${field} must be a multiple of ${issue.divisor}.`;
    case 'invalid_union': {
      if (missing) return `${field} is missing.`;
      const kinds = new Set<string>();
      for (const branch of issue.errors) {
        const first = branch[0];
        // The branch that got furthest into the value tells most.
        if (first !== undefined && first.path.length > 0)
          return sentence(first, `${field}.${nameOf(first.path)}`, valueAt(value, first.path));
        if (first?.code === 'invalid_type') kinds.add(KIND_WORDS[first.expected] ?? first.expected);
        else if (first?.code === 'invalid_value') kinds.add(first.values.map(String).join(', '));
        else if (first !== undefined) return sentence(first, field, value);
      }
      return kinds.size === 0
        ? `${field} is not valid.`
        : `${field} must be ${[...kinds].join(' or ')}, not ${kindOf(value)}.`;
    }
    case 'custom':
    case 'invalid_format':
      return issue.message.startsWith('Invalid') ? `${field} is not valid.` : withField(field, issue.message);
    default:
      return `${field} is not valid.`;
  }
}

const withField = (field: string, message: string): string => {
  const text = message.includes(field) ? message : `${field}: ${message}`;
  return /[.!?]$/.test(text) ? text : `${text}.`;
};

function limit(origin: string, bound: number | bigint, words: string): string {
  if (origin === 'string') return bound === 1n || bound === 1 ? 'not be empty' : `have ${words} ${bound} characters`;
  if (origin === 'array' || origin === 'set')
    return bound === 1 ? 'not be an empty list' : `have ${words} ${bound} entries`;
  return `be ${words} ${bound}`;
}
