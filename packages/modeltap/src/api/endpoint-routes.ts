import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { configFile } from './config-body.ts';
import type { Workspace } from './workspace.ts';

const share = z.record(z.string().max(300), z.union([z.number(), z.string().max(20)])).optional();
const change = configFile.extend({
  traffic: share,
  mirror_traffic: share,
  set: z
    .array(z.object({ key: z.string().min(1).max(300), value: z.string().max(10_000) }))
    .max(100)
    .optional(),
});
const keyType = z.object({ key_type: z.enum(['primary', 'secondary']) });

/** Routes of endpoints, their traffic and their credentials. */
export function endpointRoutes(app: FastifyInstance, workspace: Workspace): void {
  type Named = { Params: { name: string } };
  const path = '/api/v1/online-endpoints';
  const { endpoints } = workspace;
  app.get(path, async () => endpoints.list());
  app.post(path, async (request, reply) => {
    await reply.code(201).send(await endpoints.create(configFile.parse(request.body)));
  });
  app.put(path, async (request) => endpoints.update(change.parse(request.body)));
  app.get<Named>(`${path}/:name`, async ({ params }) => endpoints.get(params.name));
  app.delete<Named>(`${path}/:name`, async ({ params }, reply) => {
    await workspace.deleteEndpoint(params.name);
    await reply.code(204).send();
  });
  // POST, as in Azure: what it answers must not be fetched by a link or kept by a cache.
  app.post<Named>(`${path}/:name/credentials`, async ({ params }, reply) => {
    await reply.header('cache-control', 'no-store').send(await endpoints.credentials(params.name));
  });
  app.post<Named>(`${path}/:name/regenerate-keys`, async ({ params, body }, reply) => {
    await endpoints.regenerateKey(params.name, keyType.parse(body).key_type);
    await reply.code(204).send();
  });
}
