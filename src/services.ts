/** Composition root: wires store, compute layer and domain together. */
import type { Logger } from 'pino';
import type { Compute } from './compute/ports.js';
import type {
  DatasetsApi,
  Health,
  JobsApi,
  ModelsApi,
  ProjectsApi,
  TasksApi,
  TrainingApi,
  WeightsApi,
  WorkspaceApi,
} from './domain/contracts.js';
import type { EventBus } from './domain/events.js';
import type { PathGuard } from './domain/paths.js';
import type { Repository } from './domain/repository.js';

export interface ServicesConfig {
  /** Workspace folder, absolute; created when missing. */
  workspace: string;
  /** Folders that datasets may be imported from and exports written to, absolute. */
  dataRoots: readonly string[];
  /** What becomes of trainings that ran when the server ended: go on, or stay stopped with a reason. Default `auto`. */
  resume?: 'auto' | 'never';
  /** Below this many free bytes on the workspace's disk new jobs are refused. Default 512 MB. */
  minFreeBytes?: number;
  /** Between two backups of the database, milliseconds. Default 10 minutes. */
  backupIntervalMs?: number;
  /** Largest decoded image of a `predict` request, bytes. Default 64 MB. */
  maxImageBytes?: number;
  /** Further folders to look for pretrained weights in. */
  weightsDirs?: readonly string[];
}

export interface ServicesDeps {
  log: Logger;
  /** Default: the local compute layer. */
  compute?: Compute;
}

export interface Services {
  readonly config: ServicesConfig;
  readonly log: Logger;
  readonly events: EventBus;
  readonly paths: PathGuard;
  readonly compute: Compute;
  readonly store: Repository;
  readonly weights: WeightsApi;
  readonly workspace: WorkspaceApi;
  readonly datasets: DatasetsApi;
  readonly projects: ProjectsApi;
  readonly tasks: TasksApi;
  readonly training: TrainingApi;
  readonly jobs: JobsApi;
  readonly models: ModelsApi;
  health(): Health;
  /** Ends every running job at a checkpoint; the server goes on. */
  stopAll(): Promise<void>;
  /** Trainings checkpoint and stay marked for resume; then the store closes. */
  close(graceMs: number): Promise<void>;
}
