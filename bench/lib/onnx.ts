/** ONNX Runtime on a network that the engine has exported. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import type { Contender, Timing } from './contender.js';
import { engineAnswer, threads } from './engine.js';

export class OnnxContender implements Contender {
  readonly name = 'ONNX Runtime';
  #session: ort.InferenceSession | undefined;

  constructor(
    private readonly model: string,
    private readonly batch: number,
    private readonly size: number,
    private readonly steps: number,
  ) {}

  async #open(): Promise<ort.InferenceSession> {
    const folder = mkdtempSync(join(tmpdir(), 'oarlock-onnx-'));
    try {
      const path = join(folder, 'model.onnx');
      const args = ['bench-onnx', '--model', this.model, '--size', `${this.size}`, '--out', path];
      engineAnswer(args);
      return await ort.InferenceSession.create(path, { intraOpNumThreads: threads, interOpNumThreads: 1 });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  async turn(): Promise<Timing> {
    const fresh = this.#session === undefined;
    const session = this.#session ?? (await this.#open());
    this.#session = session;
    const [name] = session.inputNames;
    if (name === undefined) throw new Error('the exported model has no input');
    const shape = [this.batch, 3, this.size, this.size];
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => Math.random() - 0.5);
    const feeds = { [name]: new ort.Tensor('float32', values, shape) };
    if (fresh) for (let i = 0; i < 2; i += 1) await session.run(feeds);
    const start = performance.now();
    for (let i = 0; i < this.steps; i += 1) await session.run(feeds);
    return { rate: (1000 * this.batch * this.steps) / (performance.now() - start) };
  }

  close(): void {
    void this.#session?.release();
  }
}
