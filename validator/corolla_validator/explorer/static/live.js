// What the server has that we do not: versions come over one stream, and lists are fetched when theirs changed.

const AGAIN_MS = 1500;

export class Live {
  constructor(onState) {
    this.onState = onState;
    this.watched = [];
    this.latest = null;
    this.connect();
  }

  // `url()` is what to fetch when `topic` has a new version, `show(data)` gets it, and only while `wanted()`.
  watch(topic, { url, show, wanted = () => true }) {
    this.watched.push({ topic, url, show, wanted, held: null, busy: false });
  }

  connect() {
    const source = new EventSource("api/events");
    source.addEventListener("open", () => this.onState(true));
    source.addEventListener("versions", (event) => {
      this.latest = JSON.parse(event.data);
      this.refresh();
    });
    source.addEventListener("error", () => {
      this.onState(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.connect(), AGAIN_MS);
    });
  }

  refresh() {
    for (const one of this.watched) this.fetch(one);
  }

  async fetch(one) {
    if (one.busy || !this.latest) return;
    one.busy = true;
    try {
      while (one.wanted()) {
        const url = one.url(), want = `${this.latest.run} ${this.latest.topics[one.topic]} ${url}`;
        if (one.held === want) break;
        const answer = await fetch(url);
        if (!answer.ok) throw new Error(answer.statusText);
        const data = await answer.json();
        if (one.url() !== url) continue;
        one.show(data);
        one.held = want;
      }
    } catch {
      setTimeout(() => this.fetch(one), AGAIN_MS);
    } finally {
      one.busy = false;
    }
  }
}
