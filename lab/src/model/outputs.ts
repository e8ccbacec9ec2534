/** What the outputs of a notebook say of themselves. */

/** What is used of an output. */
export interface Shown {
  data: Record<string, unknown>;
}

const FORM = /^(?:TrainForm|ExportForm|DataBrowser)\(/;

/** What stands where a widget can't be drawn; the forms of Atelier are told from others by the line that they leave. */
export function needsKernelText(shown: Shown | null): string {
  const line = shown?.data['text/plain'];
  const what = typeof line === 'string' && FORM.test(line) ? 'form' : 'widget';
  return `This ${what} needs its kernel: run the cell again.`;
}
