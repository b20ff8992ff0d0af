import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { PublicObject } from '../catalog/public.ts';
import type { Answered, GivenAsset } from './answers.ts';

/** Versions of one kind of asset, as the API offers them. */
export interface AssetShelf {
  create(given: GivenAsset): Promise<Answered<PublicObject>>;
  show(name: string, version: string): Promise<PublicObject>;
  list(name: string | undefined, archived: boolean): Promise<readonly PublicObject[]>;
  setArchived(name: string, version: string, archived: boolean): Promise<PublicObject>;
}

const short = z.string().max(4_096).optional();
const assetFile = z.object({
  file: z.string().min(1).max(4_096).optional(),
  text: z
    .string()
    .max(1024 ** 2)
    .optional(),
  overrides: z
    .strictObject({ name: short, version: short, path: short, type: short, image: short, conda_file: short })
    .default({}),
});

const listQuery = z.object({
  name: z.string().optional(),
  archived: z.enum(['true', 'false']).default('false'),
});

/** The routes below `path`. `created` is the status of a `POST`: 201, or 202 when the work goes on behind the answer. */
export function assetRoutes(app: FastifyInstance, path: string, shelf: AssetShelf, created: 201 | 202): void {
  type Version = { Params: { name: string; version: string } };
  const version = `${path}/:name/versions/:version`;
  app.get(path, async (request) => {
    const { name, archived } = listQuery.parse(request.query);
    return shelf.list(name, archived === 'true');
  });
  app.post(path, async (request, reply) => {
    await reply.code(created).send(await shelf.create(assetFile.parse(request.body)));
  });
  app.get<Version>(version, async ({ params }) => shelf.show(params.name, params.version));
  app.post<Version>(`${version}/archive`, async ({ params }) => shelf.setArchived(params.name, params.version, true));
  app.post<Version>(`${version}/restore`, async ({ params }) => shelf.setArchived(params.name, params.version, false));
}
