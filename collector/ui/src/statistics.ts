// What is more than chance.

/** How many standard errors a change of a share is. Samples of one stack follow each other, so that it is no proof. */
export function standardErrors(before: number, beforeSamples: number, after: number, afterSamples: number): number {
  if (beforeSamples === 0 || afterSamples === 0) return 0;
  const pooled = (before * beforeSamples + after * afterSamples) / (beforeSamples + afterSamples);
  const error = Math.sqrt(pooled * (1 - pooled) * (1 / beforeSamples + 1 / afterSamples));
  return error > 0 ? Math.abs(after - before) / error : 0;
}
