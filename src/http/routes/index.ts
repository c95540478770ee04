/** Every API route, in the order of the API page. */
import type { Services } from '../../services.js';
import type { Route } from '../route.js';
import { datasetRoutes } from './dataset.js';
import { demoRoutes } from './demo.js';
import { evaluateRoutes } from './evaluate.js';
import { evaluateFileRoutes } from './evaluate-file.js';
import { exportRoutes } from './export.js';
import { fileRoutes } from './file.js';
import { metricsRoutes } from './metrics.js';
import { modelRoutes } from './model.js';
import { paramsRoutes } from './params.js';
import { predictRoutes } from './predict.js';
import { projectRoutes } from './project.js';
import { pruneRoutes } from './prune.js';
import { systemRoutes } from './system.js';
import { taskRoutes } from './task.js';
import { trainRoutes } from './train.js';
import { vdlRoutes } from './vdl.js';
import { workspaceRoutes } from './workspace.js';

export function apiRoutes(services: Services, options: { pathPrefix: string }): Route[] {
  return [
    ...workspaceRoutes(services),
    ...datasetRoutes(services),
    ...projectRoutes(services),
    ...taskRoutes(services),
    ...paramsRoutes(services),
    ...trainRoutes(services),
    ...metricsRoutes(services),
    ...pruneRoutes(services),
    ...evaluateRoutes(services),
    ...evaluateFileRoutes(services),
    ...predictRoutes(services),
    ...exportRoutes(services),
    ...modelRoutes(services),
    ...demoRoutes(services),
    ...fileRoutes(services),
    ...vdlRoutes(services, options.pathPrefix),
    ...systemRoutes(services),
  ];
}
