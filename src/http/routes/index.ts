/** Every API route, in the order of the API page. */
import type { Services } from '../../services.js';
import type { Route } from '../route.js';
import { fileRoutes } from './file.js';
import { paramsRoutes } from './params.js';
import { systemRoutes } from './system.js';
import { vdlRoutes } from './vdl.js';

export function apiRoutes(services: Services, options: { pathPrefix: string }): Route[] {
  return [
    ...paramsRoutes(services),
    ...fileRoutes(services),
    ...vdlRoutes(services, options.pathPrefix),
    ...systemRoutes(services),
  ];
}
