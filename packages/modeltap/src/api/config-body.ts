import { z } from 'zod';

/** A YAML file in the body of a call: its name, its text, and a name that wins over the one in it. */
export const configFile = z.object({
  file: z.string().min(1).max(4_096).optional(),
  text: z
    .string()
    .max(1024 ** 2)
    .optional(),
  name: z.string().max(300).optional(),
});
