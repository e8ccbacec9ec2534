/** The room that notes have on the page: a few at once, each for a while. */

export const MOST_NOTES = 3;
export const SHOWN_MS = 10_000;
/** A note in its last moments is changed no more: it would come back if it went meanwhile. */
const LAST_MS = 1_000;

export class Room {
  readonly shownMs = SHOWN_MS;
  /** Ids of notes with the moment at which each goes; the one that goes first is first. */
  private readonly ends = new Map<string, number>();

  isFree(now: number): boolean {
    this.forget(now);
    return this.ends.size < MOST_NOTES;
  }

  has(id: string, now: number): boolean {
    this.forget(now);
    return this.ends.has(id);
  }

  /** Notes one that is shown; the id of the oldest when that is one too many, which then has to go. */
  take(id: string, now: number): string | null {
    const oldest = this.isFree(now) ? null : ([...this.ends.keys()][0] ?? null);
    if (oldest !== null) {
      this.leave(oldest);
    }
    this.renew(id, now);
    return oldest;
  }

  /** Shows one anew; for how long. */
  renew(id: string, now: number): number {
    this.leave(id);
    this.ends.set(id, now + this.shownMs);
    return this.shownMs;
  }

  leave(id: string): void {
    this.ends.delete(id);
  }

  /** How long one is shown in all, so that a change of its words makes it neither longer nor shorter; null when it goes. */
  left(id: string, now: number): number | null {
    const end = this.ends.get(id);
    return end !== undefined && end - now > LAST_MS ? this.shownMs : null;
  }

  private forget(now: number): void {
    this.ends.forEach((end, id) => end <= now && this.ends.delete(id));
  }
}
