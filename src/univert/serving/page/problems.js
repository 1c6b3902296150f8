/** What went wrong, said to a person: what happened, what to do, and which button does it. */

/**
 * The words for a `Problem`.
 *
 * `actions` are names of what the page can do: "again" (ask once more), "photo" (choose another), "whole" (search the
 * whole photo), "clear" (drop the filters), "start" (begin anew), "key" (enter an API key). `waits` problems pass by
 * themselves: the page asks again after the time the service named, or `waitS`.
 */
export function wordsFor(problem) {
  const known = WORDS[problem.kind];
  if (known) return { icon: "alert", waits: false, ...known, detail: known.tells ? problem.detail : "" };
  return { icon: "alert", waits: false, ...WORDS.internal, detail: "" };
}

const WORDS = {
  "bad-photo": {
    title: "This file can't be read as a photo",
    advice: "It may be damaged or cut short. Try another photo, or save this one again as JPEG or PNG.",
    actions: ["photo"],
    tells: true,
  },
  "too-large": {
    title: "This photo is too large",
    advice: "Make it smaller, or cut out the part that matters, and try again.",
    actions: ["photo"],
    tells: true,
  },
  "unsupported-type": {
    title: "This kind of file isn't supported",
    advice: "Use a photo in JPEG, PNG or WebP format.",
    actions: ["photo"],
    tells: true,
  },
  "bad-box": {
    title: "This area can't be searched",
    advice: "Draw it again inside the photo, or search the whole photo.",
    actions: ["whole"],
    tells: true,
  },
  "bad-filter": {
    title: "One of the filters doesn't fit",
    advice: "The link may be from another catalogue. Clear the filters to see everything.",
    actions: ["clear"],
    tells: true,
  },
  "no-words": {
    title: "Words don't work here",
    advice: "Search with a photo instead.",
    actions: ["photo"],
    tells: true,
  },
  "not-found": {
    title: "This item isn't in the index",
    advice: "It may have been taken out since the link was made. Start with a photo instead.",
    actions: ["start"],
    icon: "none",
  },
  overloaded: {
    title: "Many people are searching right now",
    advice: "Your search is not lost.",
    actions: ["again"],
    icon: "clock",
    waits: true,
    waitS: 3,
  },
  "rate-limited": {
    title: "That was a lot of searches",
    advice: "There is a limit on how many are answered in a while.",
    actions: ["again"],
    icon: "clock",
    waits: true,
    waitS: 10,
  },
  "not-ready": {
    title: "The search is just starting",
    advice: "It needs a moment to load.",
    actions: ["again"],
    icon: "clock",
    waits: true,
    waitS: 3,
  },
  "slow-upload": {
    title: "The photo took too long to send",
    advice: "The connection may be slow. Try again, or use a smaller photo.",
    actions: ["again", "photo"],
    icon: "clock",
  },
  deadline: {
    title: "This took too long",
    advice: "The service is busy, or the connection is slow. Try again.",
    actions: ["again"],
    icon: "clock",
  },
  forbidden: {
    title: "Another website may not do this",
    advice: "Open the search by its own address and try again there.",
    actions: ["start"],
  },
  unauthorised: {
    title: "This search needs a key",
    advice: "Enter the API key that you were given for it.",
    actions: ["key"],
  },
  validation: {
    title: "The service didn't understand this search",
    advice: "Start again with a photo; if it comes back, tell whoever runs this service.",
    actions: ["again", "start"],
    tells: true,
  },
  network: {
    title: "The service can't be reached",
    advice: "Check your connection. Your photo and filters are still here.",
    actions: ["again"],
    icon: "cloud",
  },
  internal: {
    title: "Something went wrong at our end",
    advice: "It's not your photo. Try again in a moment.",
    actions: ["again"],
  },
};
