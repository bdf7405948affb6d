// The newest inspections without holes, newest first, and never more than were asked for.

export class Recent {
  /** @param {number} page how many inspections the service is asked for at a time */
  constructor(page) {
    this.page = page;
    this.items = [];
    this.next = null;
    this.most = page;
  }

  find(id) {
    return this.items.find((item) => item.id === id);
  }

  /** Take in the newest page. */
  takeNewest(page) {
    // More came since the last look than a page holds: drop the rest rather than hide a hole.
    const hole = page.next !== null && !page.items.some((item) => this.find(item.id));
    this.#merge(hole ? [] : this.items, page);
  }

  /** Take in the page that was asked for with `next`. */
  takeOlder(page) {
    this.most = this.items.length + this.page;
    this.#merge(this.items, page);
  }

  /** Take in a new inspection, or the present state of a listed one. */
  take(item) {
    const newer = this.items.length === 0 || compare(item, this.items[0]) < 0;
    if (newer || this.find(item.id)) this.#merge(this.items, { items: [item], next: this.next });
  }

  #merge(kept, page) {
    const byId = new Map(kept.map((item) => [item.id, item]));
    for (const item of page.items) byId.set(item.id, fresher(item, byId.get(item.id)));
    const all = [...byId.values()].sort(compare);
    this.items = all.slice(0, this.most);
    const last = this.items.at(-1);
    if (all.length > this.items.length) this.next = last.id;
    else if (last?.id === page.items.at(-1)?.id) this.next = page.next;
  }
}

/** The one with the newer label: an answer may have been on its way when the label was stored. */
function fresher(item, known) {
  return known && labelled(known) > labelled(item) ? known : item;
}

function labelled(item) {
  return item.feedback ? Date.parse(item.feedback.creation_time) : 0;
}

function compare(a, b) {
  return Date.parse(b.creation_time) - Date.parse(a.creation_time)
    || b.creation_time.localeCompare(a.creation_time)
    || b.id.localeCompare(a.id);
}
