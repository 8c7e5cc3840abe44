// Offers the versions that versions.js, a script beside their folders, says are there, each with its pages.
// A script and no JSON, so that it also works where the site is opened as files.
document.addEventListener("DOMContentLoaded", () => {
  const box = document.querySelector(".site-version");
  const versions = window.GRPO_DOCS_VERSIONS ?? {};
  if (!box || Object.keys(versions).length < 2) return;
  const { version, site, page } = box.dataset;
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", box.dataset.label);
  for (const name of Object.keys(versions)) choice.add(new Option(name, name, name === version, name === version));
  choice.addEventListener("change", () => {
    const there = versions[choice.value].includes(page);
    location.href = `${site}${choice.value}/${there ? page : "en/docs/index.html"}`;
  });
  box.replaceChildren(choice);
});

// What Sphinx's own Japanese lacks of the search page's words.
if (document.documentElement.lang === "ja" && typeof Documentation !== "undefined") {
  Documentation.addTranslations({
    messages: {
      "Search finished, found one page matching the search query.": ["${resultCount} ページが見つかりました。"],
    },
    plural_expr: "0",
  });
}
