/** `/demo`: ready-made projects to try the server with. */
import { z } from 'zod';
import { readType } from '../../domain/context.js';
import type { DemoApi } from '../../domain/demo.js';
import { defineRoute, type Route } from '../route.js';

export interface DemoRouteServices {
  readonly demo: DemoApi;
}

const prjType = z
  .union([z.int(), z.string()])
  .describe(
    'Project type as name, number or numeric text: 0 classification, 1 detection, 2 segmentation, 3 instance_segmentation',
  );

export function demoRoutes({ demo }: DemoRouteServices): Route[] {
  const typeOf = (value: string | number) => readType('prj_type', value).type;
  return [
    defineRoute({
      method: 'get',
      path: '/demo',
      summary: 'State of a demo download',
      tag: 'demo',
      input: z.object({ prj_type: prjType }),
      output: z.object({
        attr: z.object({
          status: z.int().nullable().describe('0 downloading, 1 failed, 2 downloaded, 3 unpacked; null: nothing yet'),
          progress: z.number().describe('Percent'),
          message: z.string(),
        }),
      }),
      async handle({ prj_type }) {
        return { attr: demo.state(typeOf(prj_type)) };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/demo',
      summary: 'Downloads a demo, or loads a downloaded one as dataset, project and task',
      tag: 'demo',
      input: z.object({ prj_type: prjType, type: z.enum(['download', 'load']) }),
      output: z.object({
        did: z.string().optional(),
        pid: z.string().optional(),
        loading_status: z.string().optional().describe('Why nothing was loaded: a name is taken already'),
      }),
      async handle({ prj_type, type }) {
        if (type === 'load') return demo.load(typeOf(prj_type));
        await demo.download(typeOf(prj_type));
        return {};
      },
    }),
    defineRoute({
      method: 'put',
      path: '/demo',
      summary: 'Stops a download; a load that is not finished is taken back',
      tag: 'demo',
      input: z.object({ prj_type: prjType }),
      output: z.object({}),
      async handle({ prj_type }) {
        await demo.stop(typeOf(prj_type));
        return {};
      },
    }),
  ];
}
