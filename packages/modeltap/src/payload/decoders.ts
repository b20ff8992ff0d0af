import { azureScore } from './azure-score.ts';
import { mlflowInvocations } from './mlflow-invocations.ts';
import { oipV2 } from './oip-v2.ts';
import { oipV2Grpc } from './oip-v2-grpc.ts';
import { openai } from './openai.ts';
import { tfServing } from './tf-serving.ts';
import type { CapturedExchange, PayloadDecoder } from './types.ts';

/** All decoders. The first that matches is used. */
export const DECODERS: readonly PayloadDecoder[] = [azureScore, mlflowInvocations, oipV2, oipV2Grpc, tfServing, openai];

/** The decoder for an exchange; undefined when it is of no protocol that is known here. */
export function decoderFor(exchange: CapturedExchange): PayloadDecoder | undefined {
  return DECODERS.find((decoder) => decoder.matches(exchange));
}
