// The page's frame: views, time, theme, and the view that the address names.

import { render } from "preact";
import { useEffect } from "preact/hooks";
import { TokenDialog } from "./access";
import { Link } from "./parts/link";
import { RangePicker } from "./parts/range";
import "./styles.css";
import { toggle, useTheme } from "./theme";
import { usePlace, type Place, type View } from "./url";
import { Compare } from "./views/compare";
import { Explore } from "./views/explore";
import { HostView } from "./views/host";
import { Overview } from "./views/overview";
import { PodView } from "./views/pod";
import { ProfileView } from "./views/profile";
import { VerdictView } from "./views/verdict";

const NAMES: [View, string][] = [
  ["/", "Overview"],
  ["/explore", "Explore"],
  ["/compare", "Compare"],
  ["/profile", "Profile now"],
];

function Shown({ place }: { place: Place }) {
  switch (place.view) {
    case "/":
      return <Overview place={place} />;
    case "/verdict":
      return <VerdictView place={place} />;
    case "/explore":
      return <Explore place={place} />;
    case "/host":
      return <HostView place={place} />;
    case "/pod":
      return <PodView place={place} />;
    case "/compare":
      return <Compare place={place} />;
    case "/profile":
      return <ProfileView place={place} />;
  }
}

function Page() {
  const place = usePlace();
  const theme = useTheme();
  const { host, pod } = place.params;
  useEffect(() => {
    const name = place.view === "/" ? "Overview" : place.view.slice(1);
    const subject = place.view === "/pod" ? pod : host;
    document.title = `${subject ? `${subject} · ` : ""}${name} · Chokepoint`;
  }, [place]);
  const { from, until } = place.params;
  return (
    <>
      <a class="skip" href="#view">
        Skip to the view
      </a>
      <header>
        <span class="brand">Chokepoint</span>
        <nav aria-label="Views">
          {NAMES.map(([view, name]) => (
            <Link key={view} view={view} params={view === "/profile" ? { host, from, until } : { from, until }} current={place.view === view}>
              {name}
            </Link>
          ))}
          {pod && (
            <Link view="/pod" params={{ pod, host, from, until }} current={place.view === "/pod"}>
              Pod
            </Link>
          )}
          {host && (
            <>
              <Link view="/verdict" params={{ host, from, until }} current={place.view === "/verdict"}>
                Verdict
              </Link>
              <Link view="/host" params={{ host, from, until }} current={place.view === "/host"}>
                Host
              </Link>
            </>
          )}
        </nav>
        <RangePicker place={place} />
        <button type="button" class="theme" onClick={toggle} aria-label={theme === "dark" ? "Light colours" : "Dark colours"} title={theme === "dark" ? "Light" : "Dark"}>
          {theme === "dark" ? "☀" : "☾"}
        </button>
      </header>
      <main id="view" tabIndex={-1}>
        <Shown place={place} />
      </main>
      <TokenDialog />
    </>
  );
}

render(<Page />, document.getElementById("page")!);
